"""Two losses in one optimizer step: demonstrations in the gradient accumulation of the RL update."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from megatron.core.utils import get_model_config
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu


def accumulate_both(
    engine, rl_data: TensorDict, rl_loss: Callable, sft_data: TensorDict, sft_loss: Callable
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leave in the gradient buffers d(rl_loss)/dw + d(sft_loss)/dw, reduced over all ranks once.

    Each loss keeps its own normalizer, micro-batches and metrics.

    Args:
        engine: verl's Megatron engine, in train mode.
        rl_data, sft_data: this data-parallel rank's share of each batch.
        rl_loss, sft_loss: loss functions as the engine calls them.

    Returns:
        What `forward_backward_batch` returns, for each.
    """
    engine.optimizer_zero_grad()
    with _not_reduced(engine):
        rl_output = engine.forward_backward_batch(rl_data, rl_loss)
    return rl_output, engine.forward_backward_batch(sft_data, sft_loss)


@contextmanager
def spliced(engine, sft_data: TensorDict, sft_loss: Callable) -> Iterator[dict[str, Any]]:
    """Let the RL update's last mini-batch carry the demonstrations, while active.

    Yields:
        A dict that holds what `forward_backward_batch` returned for the demonstrations once the update was made.
    """
    if engine.tf_config.calculate_per_token_loss:
        raise NotImplementedError(
            "Megatron's calculate_per_token_loss divides all gradients by one token count, but the RL loss and the "
            "demonstrations' loss have one each; use a method whose supervised update is its own, like relift"
        )
    train_batch = engine.train_batch
    sft_output: dict[str, Any] = {}

    def train_both(data: TensorDict, loss_function: Callable) -> dict[str, Any]:
        # This is how verl marks the last mini-batch of the last epoch.
        if not tu.get(data, "update_lr_scheduler", default=False):
            return train_batch(data, loss_function)
        output, of_demonstrations = accumulate_both(engine, data, loss_function, sft_data, sft_loss)
        sft_output.update(of_demonstrations)
        grad_norm = engine.optimizer_step()
        if engine.is_mp_src_rank_with_outputs():
            output["metrics"]["grad_norm"] = grad_norm
        return output

    engine.train_batch = train_both
    try:
        yield sft_output
    finally:
        del engine.train_batch  # the class's own again


@contextmanager
def _not_reduced(engine) -> Iterator[None]:
    """Let gradients add up on each rank: Megatron reduces them after each pass, and would reduce the first twice."""
    configs = [get_model_config(chunk) for chunk in engine.module]
    finalize = [config.finalize_model_grads_func for config in configs]
    for config in configs:
        config.finalize_model_grads_func = None
    try:
        yield
    finally:
        for config, function in zip(configs, finalize, strict=True):
            config.finalize_model_grads_func = function
