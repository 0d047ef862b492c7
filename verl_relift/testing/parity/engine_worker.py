"""Run one rank of a Megatron engine on a CPU: `engine_worker MODEL OUTPUT TP PP`.

It writes log-probs, entropies, weights, losses and gradients to OUTPUT, by the way in which the output layer is
computed (`OUTPUT_LAYERS`), from the rank that has the outputs of each data-parallel replica.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import verl  # noqa: F401  loads the platform plugin
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import HFModelConfig, McoreActorConfig, McoreEngineConfig, McoreOptimizerConfig
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss

from ...actor.losses import all_terms
from ...actor.roles import role_loss, role_tokens_counted
from ...actor.splice import accumulate_both
from ...actor.worker import _engine_loss, _relative_to_own
from ...types import Role
from ...upstream.speed import vocabulary
from .batch import (
    ENTROPY_COEFF,
    HINT_COEFF,
    OUTPUT_LAYERS,
    OWN_COEFF,
    SPLICE_WEIGHT,
    SPLITS,
    VOCABULARY,
    hint_lengths,
    make_batch,
    make_policy_inputs,
)


def build_engine(
    model: str,
    tp: int,
    pp: int,
    distributed_optimizer: bool = False,
    sequence_parallel: bool = True,
    dtype: str = "float32",
    fused: bool = False,
):
    """Build verl's Megatron engine.

    Args:
        model: a model's folder in Hugging Face's format.
        tp: tensor-parallel size.
        pp: pipeline-parallel size.
        distributed_optimizer: without it every rank holds the complete gradients.
        sequence_parallel: Megatron's setting of this name.
        dtype: of weights and activations; below fp32 the optimizer keeps fp32 masters.
        fused: whether log-probs are computed with the output layer.
    """
    engine = EngineRegistry.new(
        model_type="language_model",
        backend="megatron",
        model_config=HFModelConfig(path=model),
        engine_config=McoreEngineConfig(
            tensor_model_parallel_size=tp,
            pipeline_model_parallel_size=pp,
            sequence_parallel=sequence_parallel,
            vanilla_mbridge=True,
            dtype=dtype,
            use_fused_kernels=fused,
            use_distributed_optimizer=distributed_optimizer,
            dist_ckpt_optim_fully_reshardable=True,
            distrib_optim_fully_reshardable_mem_efficient=True,
            use_dynamic_bsz=True,
            override_transformer_config={"attention_backend": "auto", "bias_activation_fusion": True},
        ),
        optimizer_config=McoreOptimizerConfig(
            lr=1e-3,
            total_training_steps=10,
            lr_warmup_steps=0,
            lr_decay_steps=10,
            use_checkpoint_opt_param_scheduler=True,
        ),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def to_tensordict(engine, max_tokens: int):
    """Return this data-parallel rank's share of the batch in verl's unpadded form.

    Args:
        engine: this rank's engine.
        max_tokens: tokens per micro-batch.
    """
    rank, size = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    prompts, responses = make_batch()
    pairs = list(zip(prompts, responses, strict=True))[rank::size]
    jagged = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    return tu.get_tensordict(
        {
            "input_ids": jagged([torch.cat(pair) for pair in pairs]),
            "position_ids": jagged([torch.arange(len(p) + len(r)) for p, r in pairs]),
            "loss_mask": jagged([torch.cat([torch.zeros_like(p), torch.ones_like(r)]) for p, r in pairs]),
            "temperature": torch.ones(len(pairs)),
        },
        {
            "use_dynamic_bsz": True,
            "max_token_len_per_gpu": max_tokens,
            "calculate_entropy": True,
            "global_batch_size": len(prompts),
            "use_remove_padding": True,
        },
    )


def export(engine) -> dict[str, torch.Tensor]:
    """Return copies of the parameters under their Hugging Face names. All ranks must call this."""
    # Not by the engine, because verl's export expects the buffers of the distributed optimizer.
    return {name: tensor.detach().clone() for name, tensor in engine.bridge.export_weights(engine.module)}


def supervised(engine, max_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the supervised loss of the batch and its gradient."""
    return gradients(engine, to_tensordict(engine, max_tokens), partial(_engine_loss, entropy_coeff=ENTROPY_COEFF))


def policy(engine, max_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Return verl's GRPO loss (token mean) with the batch as rollouts, and its gradient."""
    return gradients(engine, *policy_inputs(engine, max_tokens))


def policy_inputs(engine, max_tokens: int):
    """Return this rank's share of the rollouts, and verl's GRPO loss function."""
    rank, size = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    prompts, responses = (part[rank::size] for part in make_batch())
    log_probs, advantages = (part[rank::size] for part in make_policy_inputs())
    jagged = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    masks = jagged([torch.ones_like(r) for r in responses])
    data = to_tensordict(engine, max_tokens)
    tu.assign_non_tensor(data, calculate_entropy=False)
    data.update(
        {
            "prompts": jagged(prompts),
            "responses": jagged(responses),
            "response_mask": masks,
            "loss_mask": masks,
            "old_log_probs": jagged(log_probs),
            "advantages": jagged(advantages),
        }
    )
    config = McoreActorConfig(
        strategy="megatron",
        rollout_n=1,
        ppo_mini_batch_size=8,
        use_dynamic_bsz=True,
        ppo_max_token_len_per_gpu=max_tokens,
        optim=McoreOptimizerConfig(lr=1e-3, total_training_steps=10),
    )
    return data, partial(ppo_loss, config=config)


def policy_reusing(engine, max_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the GRPO loss whose old log-probs are those of its own pass, and its gradient."""
    data, loss = policy_inputs(engine, max_tokens)
    del data["old_log_probs"]
    return gradients(engine, data, partial(_relative_to_own, loss))


def spliced(engine, max_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the GRPO loss plus SPLICE_WEIGHT times the supervised one, and the gradient accumulated for both."""
    return _splice(engine, max_tokens, *policy_inputs(engine, max_tokens))


def spliced_reusing(engine, max_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the same with the GRPO loss of `policy_reusing`."""
    data, loss = policy_inputs(engine, max_tokens)
    del data["old_log_probs"]
    return _splice(engine, max_tokens, data, partial(_relative_to_own, loss))


def _splice(engine, max_tokens: int, data, loss) -> tuple[float, dict[str, torch.Tensor]]:
    sft = partial(_engine_loss, entropy_coeff=ENTROPY_COEFF, weight=SPLICE_WEIGHT)
    return loss_and_gradients(engine, accumulate_both(engine, data, loss, to_tensordict(engine, max_tokens), sft))


def guided(engine, max_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the policy loss in which half of each response is a hint and tokens have weights, and its gradient."""
    rank, size = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    responses, heads = make_batch()[1][rank::size], hint_lengths()[rank::size]
    hinted = [(torch.arange(len(response)) < head).long() for response, head in zip(responses, heads, strict=True)]
    jagged = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    data, loss = policy_inputs(engine, max_tokens)
    data["response_mask"] = data["loss_mask"] = jagged([1 - hint for hint in hinted])
    data["roles"] = jagged([torch.where(hint == 1, Role.HINT, Role.CONTINUATION) for hint in hinted])
    weights = {
        Role.HINT: lambda token: (token.log_prob.exp() * (1 - token.log_prob.exp())).detach(),
        Role.CONTINUATION: lambda token: 1 - token.log_prob.exp(),
    }
    coefficients = {Role.OWN: OWN_COEFF, Role.HINT: HINT_COEFF}
    loss = partial(
        role_loss,
        loss,
        weights,
        all_terms(weights, ()),
        coefficients,
        config=loss.keywords["config"],
        vocabulary=VOCABULARY,
    )
    with role_tokens_counted(engine):
        return gradients(engine, data, loss)


def gradients(engine, data, loss_function) -> tuple[float, dict[str, torch.Tensor]]:
    """Return a loss of `data` and its gradient, under Hugging Face names."""
    engine.optimizer_zero_grad()
    return loss_and_gradients(engine, [engine.forward_backward_batch(data, loss_function)])


def loss_and_gradients(engine, outputs: list[dict]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the sum of the passes' losses, and the contents of the gradient buffers under Hugging Face names."""
    loss = torch.tensor(sum((float(sum(output["loss"])) for output in outputs if output), start=0.0))
    dist.all_reduce(loss, op=dist.ReduceOp.AVG, group=engine.get_data_parallel_group())
    parameters = [p for chunk in engine.module for p in chunk.parameters()]
    weights = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(parameter.main_grad)
        result = export(engine)
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.copy_(weight)
    return loss.item(), result


@contextmanager
def output_layer(engine, how: str) -> Iterator[None]:
    """Compute the output layer in one of the ways of `OUTPUT_LAYERS`."""
    engine.engine_config.use_fused_kernels = how != "apart"
    engine._maybe_enable_fused_kernels()
    before = vocabulary.BLOCK_BYTES_CPU, vocabulary.ROWS
    if how == "in blocks":
        vocabulary.BLOCK_BYTES_CPU, vocabulary.ROWS = 0, 24
    yield
    vocabulary.BLOCK_BYTES_CPU, vocabulary.ROWS = before


def compute(engine) -> dict | None:
    """Return outputs, losses and gradients of the batch; None on ranks without outputs."""
    with engine.eval_mode():
        inferred = engine.infer_batch(to_tensordict(engine, max(SPLITS)))
    with engine.train_mode():
        losses = {
            loss.__name__: {max_tokens: loss(engine, max_tokens) for max_tokens in SPLITS}
            for loss in (supervised, policy, policy_reusing, spliced, spliced_reusing, guided)
        }
    if not engine.is_mp_src_rank_with_outputs():
        return None
    return {"outputs": {name: list(value.unbind()) for name, value in inferred["model_output"].items()}, **losses}


def main() -> None:
    """Run the command line."""
    model, output, tp, pp = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    dist.init_process_group("cpu:gloo")
    engine = build_engine(model, tp, pp)
    found = {"weights": export(engine)}
    for how in OUTPUT_LAYERS:
        with output_layer(engine, how):
            found[how] = compute(engine)
    if engine.is_mp_src_rank_with_outputs():
        torch.save(found, output / f"{engine.get_data_parallel_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
