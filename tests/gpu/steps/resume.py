"""Updates, a checkpoint, a new process, a resume: weights and AdamW's state are the same bits.

The step runs this module twice, as `save` and as `load`, for one optimizer that both losses share and for two.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from ..report import Report
from ..step import Task

BEFORE, AFTER = 10, 2
SEQUENCES, LENGTH = 8, 128


def run(report: Report, task: Task) -> None:
    """Save in one process, resume in another, and compare what both end with."""
    import torch

    from .. import models

    models.save("small" if task.cuda else "tiny", task.folder / "model", task.device)
    for separate in (False, True):
        name = "two optimizers" if separate else "one optimizer"
        with report.part(name):
            folder = task.folder / name.replace(" ", "-")
            for action in ("save", "load"):
                _in_a_process(action, task, folder, separate)
            saved, loaded = (torch.load(folder / f"{action}.pt", weights_only=True) for action in ("save", "load"))
            for moment in ("at the checkpoint", "two updates later"):
                ours, theirs = loaded[moment], saved[moment]
                different = [key for key in theirs if key not in ours or not torch.equal(ours[key], theirs[key])]
                different += ours.keys() - theirs.keys()
                report.check(
                    f"{name}, {moment}: {len(theirs)} tensors",
                    not different,
                    different[:5] or "equal",
                    "equal bits",
                )
            report.figure(f"{name}: losses", json.dumps(saved["losses"]))


def _in_a_process(action: str, task: Task, folder: Path, separate: bool) -> None:
    command = [
        sys.executable,
        "-m",
        __name__,
        action,
        task.device,
        str(task.folder / "model"),
        str(folder),
        str(int(separate)),
    ]
    # cuBLAS, cuDNN's attention and torch's scatter add in a fixed order.
    deterministic = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0"}
    subprocess.run(command, env={**os.environ, **deterministic}, check=True)


def _worker(engine):
    """Return the product's worker around an engine, without Ray: it saves and loads what the trainer asks it to."""
    from verl_relift.actor.worker import DemonstrationWorker

    worker = DemonstrationWorker.__new__(DemonstrationWorker)
    worker.__dict__.update(actor=SimpleNamespace(engine=engine), _moments=None, _rank=0)
    return worker


def _state(rank, worker, separate: bool) -> dict:
    """Return copies of the weights and of everything in the optimizers."""
    import torch

    from verl_relift.testing.parity.engine_worker import export

    tensors = {name: value.cpu().clone() for name, value in export(rank.engine).items()}

    def note(prefix: str) -> None:
        parts = getattr(rank.engine.optimizer, "chained_optimizers", [rank.engine.optimizer])
        for i, part in enumerate(parts):
            for j, group in enumerate(part.optimizer.param_groups):
                # Transformer Engine's AdamW counts by group, torch's by parameter; a loaded group has both.
                if "step" in group and not any("step" in part.optimizer.state[p] for p in group["params"]):
                    tensors[f"{prefix}.{i}.{j}.step"] = torch.as_tensor(float(group["step"]))
                for k, parameter in enumerate(group["params"]):
                    tensors[f"{prefix}.{i}.{j}.{k}"] = parameter.detach().cpu().clone()
                    for key, value in part.optimizer.state[parameter].items():
                        if torch.is_tensor(value):
                            tensors[f"{prefix}.{i}.{j}.{k}.{key}"] = value.detach().cpu().clone()

    note("optimizer")
    if separate:
        with worker._own_moments().lent():
            note("supervised optimizer")
    return tensors


def _updates(rank, worker, separate: bool, first: int, count: int) -> list[float]:
    from contextlib import nullcontext

    import torch

    losses = []
    for number in range(first, first + count):
        torch.manual_seed(number)
        losses.append(rank.policy_update(rank.batch(SEQUENCES, LENGTH)))
        with worker._own_moments().lent() if separate else nullcontext():
            losses.append(rank.supervised_update(rank.demonstrations(SEQUENCES, LENGTH)))
        rank.engine.lr_scheduler_step()
    return losses


def main() -> None:
    """Run one of the two processes."""
    action, device, model, folder, separate = sys.argv[1:]
    folder, separate = Path(folder), separate == "1"
    import torch

    from .. import engine

    engine.start(device)
    torch.use_deterministic_algorithms(True, warn_only=True)
    rank = engine.Rank(engine.compose(device, Path(model), "actor_rollout_ref.actor.optim.lr=1e-4"), "bfloat16")
    worker, result = _worker(rank.engine), {}
    if action == "save":
        result["losses"] = _updates(rank, worker, separate, 0, BEFORE)
        folder.mkdir(parents=True)
        rank.engine.save_checkpoint(str(folder / "actor"), global_step=BEFORE)
        worker.save_extra(str(folder / "extra"))
    else:
        worker.load_extra(str(folder / "extra"), separate)
        rank.engine.load_checkpoint(str(folder / "actor"), del_local_after_load=False)
    result["at the checkpoint"] = _state(rank, worker, separate)
    _updates(rank, worker, separate, BEFORE, AFTER)
    result["two updates later"] = _state(rank, worker, separate)
    torch.save(result, folder / f"{action}.pt")


if __name__ == "__main__":
    main()
