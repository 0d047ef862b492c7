"""Run one rank of Megatron engines for many models, one after the other: `models_worker FOLDER OUTPUT TP PP`.

For every model in FOLDER it writes log-probs, exported weights, a supervised loss and its gradient to OUTPUT, from the
rank that has the outputs of each data-parallel replica.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import verl  # noqa: F401  loads the platform plugin

from .batch import SPLITS
from .engine_worker import build_engine, export, supervised, to_tensordict


def run(model: Path, tp: int, pp: int) -> dict | None:
    """Return what Megatron computes for the batch with one model; None on ranks without outputs."""
    engine = build_engine(str(model), tp, pp)
    weights = export(engine)
    with engine.eval_mode():
        inferred = engine.infer_batch(to_tensordict(engine, max(SPLITS)))
    with engine.train_mode():
        loss, gradients = supervised(engine, max(SPLITS))
    if not engine.is_mp_src_rank_with_outputs():
        return None
    log_probs = [row[:-1].clone() for row in inferred["model_output"]["log_probs"].unbind()]
    return {"log_probs": log_probs, "weights": weights, "loss": loss, "gradients": gradients}


def main() -> None:
    """Run the command line."""
    folder, output, tp, pp = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    dist.init_process_group("cpu:gloo")
    found = {model.name: run(model, tp, pp) for model in sorted(folder.iterdir())}
    if all(found.values()):
        torch.save(found, output / f"{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
