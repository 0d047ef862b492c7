"""How much of an update's gradient comes from each part of its loss; it costs a pass for each part."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric

# The loss of a part in the form that verl's engine calls, and its batch; None: the RL update's mini-batch.
Part = tuple[Callable, TensorDict | None]


@contextmanager
def gradient_shares(engine, parts: Mapping[str, Part]) -> Iterator[None]:
    """While active, let the last mini-batch of an update measure the gradient of each part.

    Its metrics get `NAME_gradient_share`: the norm of the part's gradient over the norm of the whole one. Gradients of
    parts may point against each other, so the shares need not add up to 1.

    Args:
        engine: verl's Megatron engine.
        parts: by name; nothing is measured where there are none.
    """
    before, train_batch = vars(engine).get("train_batch"), engine.train_batch

    def measure_and_train(data: TensorDict, loss_function: Callable) -> dict:
        # This is how verl marks the last mini-batch of the last epoch.
        if not tu.get(data, "update_lr_scheduler", default=False):
            return train_batch(data, loss_function)
        norms = {
            name: _norm(engine, data.copy() if own is None else own.copy(), loss) for name, (loss, own) in parts.items()
        }
        output = train_batch(data, loss_function)
        if engine.is_mp_src_rank_with_outputs():
            metrics = output["metrics"]
            whole = float(metrics["grad_norm"])
            shares = {name: norm / whole if whole else 0.0 for name, norm in norms.items()}
            metrics |= {f"{name}_gradient_share": Metric(AggregationType.MEAN, one) for name, one in shares.items()}
        return output

    if parts:
        engine.train_batch = measure_and_train
    try:
        yield
    finally:
        if parts and before is None:
            del engine.train_batch  # the class's own again
        elif parts:
            engine.train_batch = before


def _norm(engine, data: TensorDict, loss: Callable) -> float:
    """Return the norm of the gradient of a loss, over all ranks."""
    engine.optimizer_zero_grad()
    engine.forward_backward_batch(data, loss)
    engine.optimizer.prepare_grads()
    return float(engine.optimizer.get_grad_norm())
