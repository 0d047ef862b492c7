"""Run one rank of a Megatron engine that saves or resumes: `checkpoint_worker MODEL OUTPUT TP PP ACTION FOLDER DTYPE`.

With ACTION `save`, it makes two updates with each set of AdamW moments, saves to FOLDER, and makes two more of each.
With `load`, it resumes from FOLDER and makes the last two of each. Either way it writes the resulting weights to
OUTPUT, from the rank that has the outputs of each data-parallel replica.
"""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import verl  # noqa: F401  loads the platform plugin

from ...actor.hyperparameters import kept
from ...actor.moments import Moments
from ...actor.worker import DemonstrationWorker, _engine_loss
from .batch import ENTROPY_COEFF
from .engine_worker import build_engine, export, policy_inputs, to_tensordict

TOKENS = 130


def update(engine, moments: Moments) -> None:
    """Make one RL update, then one supervised update with the other moments."""
    with engine.train_mode():
        engine.train_batch(*policy_inputs(engine, TOKENS))
        with moments.lent():
            engine.train_batch(to_tensordict(engine, TOKENS), partial(_engine_loss, entropy_coeff=ENTROPY_COEFF))
    engine.lr_scheduler_step()


def main() -> None:
    """Run the command line."""
    model, output, tp, pp, action, folder, dtype = sys.argv[1:]
    dist.init_process_group("cpu:gloo")
    engine = build_engine(model, int(tp), int(pp), distributed_optimizer=True, dtype=dtype, fused=True)
    moments = Moments(engine.optimizer, offload=False)
    worker = SimpleNamespace(actor=SimpleNamespace(engine=engine))
    if action == "save":
        engine.lr_scheduler_step()  # the first learning rate is 0
        for _ in range(2):
            update(engine, moments)
        engine.save_checkpoint(f"{folder}/rl")
        with moments.lent(), DemonstrationWorker._optimizer_only(worker):
            engine.save_checkpoint(f"{folder}/sft")
    else:
        own = partial(kept, engine.optimizer, engine.lr_scheduler)
        with moments.lent(), DemonstrationWorker._optimizer_only(worker), own():
            engine.load_checkpoint(f"{folder}/sft", del_local_after_load=False)
        engine.checkpoint_mananager.checkpoint_load_contents = ["model", "optimizer"]
        with own():
            engine.load_checkpoint(f"{folder}/rl", del_local_after_load=False)
    for _ in range(2):
        update(engine, moments)
    weights = export(engine)
    if engine.is_mp_src_rank_with_outputs():
        torch.save(weights, Path(output) / f"{engine.get_data_parallel_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
