"""Run one rank of a Megatron engine on CUDA: `engine_worker MODEL OUTPUT DTYPE SPEC TASK`.

TASK `parity` writes what `verl_relift.testing.parity.engine_worker` writes on a CPU. `updates` makes supervised
and RL updates on one batch. `speed` measures the time and memory of updates of a larger model.
"""

import sys
import time
from functools import partial
from pathlib import Path

if sys.argv[4] == "local":
    # As if Transformer Engine were not installed: importlib finds nothing.
    sys.modules["transformer_engine"] = None

import torch
import torch.distributed as dist
import verl  # noqa: F401  loads the platform plugin
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import HFModelConfig, McoreEngineConfig, McoreOptimizerConfig
from verl.workers.engine import EngineRegistry

from verl_relift.actor.worker import _engine_loss
from verl_relift.testing.parity.batch import ENTROPY_COEFF, SPLITS
from verl_relift.testing.parity.engine_worker import export, policy, policy_inputs, supervised, to_tensordict

SEQUENCE = 4096
WARM_UP, TIMED = 2, 5


def build_engine(model: str, dtype: str, distributed_optimizer: bool):
    """Build verl's Megatron engine on this rank's device."""
    config = McoreEngineConfig(
        vanilla_mbridge=True,
        use_distributed_optimizer=distributed_optimizer,
        use_dynamic_bsz=True,
        override_transformer_config={"attention_backend": "auto"},
    )
    # verl rejects fp32 for Megatron because it is slow; here fp32 is the exact reference.
    object.__setattr__(config, "dtype", dtype)
    engine = EngineRegistry.new(
        model_type="language_model",
        backend="megatron",
        model_config=HFModelConfig(path=model),
        engine_config=config,
        optimizer_config=McoreOptimizerConfig(lr=1e-3, total_training_steps=100, lr_warmup_steps=0, lr_decay_steps=100),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def parity(model: str, dtype: str) -> dict:
    """Return log-probs, entropies, weights, losses and gradients of the parity batch."""
    engine = build_engine(model, dtype, distributed_optimizer=False)
    weights = export(engine)
    with engine.eval_mode():
        inferred = engine.infer_batch(to_tensordict(engine, max(SPLITS)))
    with engine.train_mode():
        losses = {loss.__name__: {n: loss(engine, n) for n in SPLITS} for loss in (supervised, policy)}
    outputs = {name: list(value.unbind()) for name, value in inferred["model_output"].items()}
    return _on_cpu({"outputs": outputs, "weights": weights, **losses})


def updates(model: str, dtype: str) -> dict:
    """Make ten supervised updates, then five RL updates, on one batch; return their losses."""
    engine = build_engine(model, dtype, distributed_optimizer=True)
    losses: dict[str, list[float]] = {"supervised": [], "policy": []}
    with engine.train_mode():
        for _ in range(10):
            loss = partial(_engine_loss, entropy_coeff=ENTROPY_COEFF)
            losses["supervised"].append(_loss(engine.train_batch(to_tensordict(engine, 130), loss)))
        for _ in range(5):
            losses["policy"].append(_loss(engine.train_batch(*policy_inputs(engine, 130))))
    return losses


def _loss(output: dict) -> float:
    return float(sum(output["loss"]))


def speed(model: str, dtype: str) -> dict:
    """Return the seconds of an update on two micro-batches of 16,384 tokens, and the peak of allocated bytes."""
    engine = build_engine(model, dtype, distributed_optimizer=True)
    vocabulary = engine.model_config.hf_config.vocab_size
    count, budget = 8, 4 * SEQUENCE
    jagged = partial(torch.nested.as_nested_tensor, layout=torch.jagged)

    def batch():
        ids = [torch.randint(2, vocabulary, (SEQUENCE,)) for _ in range(count)]
        return tu.get_tensordict(
            {
                "input_ids": jagged(ids),
                "position_ids": jagged([torch.arange(SEQUENCE) for _ in ids]),
                "loss_mask": jagged([torch.ones(SEQUENCE, dtype=torch.int64) for _ in ids]),
                "temperature": torch.ones(count),
            },
            {
                "use_dynamic_bsz": True,
                "max_token_len_per_gpu": budget,
                "calculate_entropy": True,
                "global_batch_size": count,
                "use_remove_padding": True,
            },
        )

    loss = partial(_engine_loss, entropy_coeff=ENTROPY_COEFF)
    with engine.train_mode():
        for _ in range(WARM_UP):
            engine.train_batch(batch(), loss)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        for _ in range(TIMED):
            engine.train_batch(batch(), loss)
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - started) / TIMED
    return {"seconds": seconds, "allocated": torch.cuda.max_memory_allocated(), "sequences": count, "budget": budget}


def _on_cpu(value):
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value


def main() -> None:
    """Run the command line."""
    model, output, dtype, _, task = sys.argv[1:6]
    torch.cuda.set_device(0)
    dist.init_process_group("cpu:gloo,cuda:nccl")
    result = {"parity": parity, "updates": updates, "speed": speed}[task](model, dtype)
    torch.save(result, Path(output))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
