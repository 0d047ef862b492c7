"""Run one rank of Megatron engines in fp32 and in bf16: `precision_worker MODEL OUTPUT TP PP`.

It writes, by dtype, the log-probs and entropies of the batch, the gradients of all losses and what `train` returns,
from the rank that has the outputs of each data-parallel replica.
"""

import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import verl  # noqa: F401  loads the platform plugin

from ...actor.worker import _engine_loss
from .batch import ENTROPY_COEFF, SPLITS
from .engine_worker import build_engine, export, policy_reusing, spliced_reusing, supervised, to_tensordict

DTYPES = ("float32", "bfloat16")
STEPS = 50
RATE = 2e-4  # less than half the distance of neighboring bf16 numbers near most weights: nothing moves without masters


def gradients(model: str, tp: int, pp: int, dtype: str) -> dict | None:
    """Return outputs and gradients of an engine; None on ranks without outputs."""
    engine = build_engine(model, tp, pp, dtype=dtype, fused=True)
    with engine.eval_mode():
        inferred = engine.infer_batch(to_tensordict(engine, max(SPLITS)))
    with engine.train_mode():
        # With old log-probs of other passes, rounding decides which tokens are clipped.
        losses = {loss.__name__: loss(engine, SPLITS[1]) for loss in (supervised, policy_reusing, spliced_reusing)}
    if not engine.is_mp_src_rank_with_outputs():
        return None
    return {"outputs": {name: list(value.unbind()) for name, value in inferred["model_output"].items()}, **losses}


def train(model: str, tp: int, pp: int, dtype: str) -> dict:
    """Return the losses of `STEPS` supervised updates, the weights after them, and the dtypes of the masters.

    `rounded` is the largest relative difference between a master and the bf16 number next to it.
    """
    engine = build_engine(model, tp, pp, distributed_optimizer=True, dtype=dtype, fused=True)
    losses = []
    with engine.train_mode():
        for _ in range(STEPS):
            for group in engine.optimizer.param_groups:
                group["lr"] = RATE
            output = engine.train_batch(
                to_tensordict(engine, SPLITS[1]), partial(_engine_loss, entropy_coeff=ENTROPY_COEFF)
            )
            loss = torch.tensor(sum(output["loss"], start=0.0) if output else 0.0)
            dist.all_reduce(loss, op=dist.ReduceOp.AVG, group=engine.get_data_parallel_group())
            losses.append(loss.item())
    groups = [group for part in engine.optimizer.chained_optimizers for group in part.optimizer.param_groups]
    masters = [master.detach() for group in groups for master in group["params"] if master.numel()]
    rounded = max(float(((m - m.bfloat16().float()).abs() / m.abs().clamp(min=1e-9)).max()) for m in masters)
    return {"losses": losses, "weights": export(engine), "masters": [m.dtype for m in masters], "rounded": rounded}


def main() -> None:
    """Run the command line."""
    model, output, tp, pp = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    dist.init_process_group("cpu:gloo")
    found = {dtype: (gradients(model, tp, pp, dtype), train(model, tp, pp, dtype)) for dtype in DTYPES}
    if found[DTYPES[0]][0] is not None:
        torch.save(found, output / f"{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
