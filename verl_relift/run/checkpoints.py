"""A run's checkpoints as folders: one is there whole or not at all, and the tracker names a whole one.

global_step_N.partial/               being written; a killed run leaves it, the next save removes it
global_step_N/                       whole
latest_checkpointed_iteration.txt    N of the one to resume from, moved last
"""

import shutil
from pathlib import Path

from . import folder as runfolder

TRACKER = "latest_checkpointed_iteration.txt"
_PREFIX, _PARTIAL = "global_step_", ".partial"


class CheckpointError(RuntimeError):
    """A checkpoint that the run is told to resume from cannot be used. The message says what to do."""


def begin(run: Path, step: int) -> Path:
    """An empty folder to write the checkpoint of ``step`` into; leftovers of killed runs are removed."""
    for leftover in run.glob(f"{_PREFIX}*{_PARTIAL}"):
        shutil.rmtree(leftover)
    folder = run / f"{_PREFIX}{step}{_PARTIAL}"
    folder.mkdir(parents=True)
    return folder


def commit(run: Path, step: int) -> Path:
    """Give the folder that :func:`begin` made its name, then move the tracker."""
    partial, folder = run / f"{_PREFIX}{step}{_PARTIAL}", run / f"{_PREFIX}{step}"
    if folder.exists():
        # Of a run that was killed before it moved the tracker, or that resumed from an earlier step.
        shutil.rmtree(folder)
    partial.rename(folder)
    runfolder.write_atomically(run / TRACKER, str(step))
    return folder


def prune(run: Path, keep: int | None) -> None:
    """Remove whole checkpoints beyond the ``keep`` newest; never the one that the tracker names. None keeps all."""
    if not keep:
        return
    latest = (run / TRACKER).read_text().strip()
    steps = sorted(
        int(name) for path in run.glob(f"{_PREFIX}*") if (name := path.name.removeprefix(_PREFIX)).isdecimal()
    )
    for step in steps[:-keep]:
        if str(step) != latest:
            shutil.rmtree(run / f"{_PREFIX}{step}")


def latest(run: Path) -> Path | None:
    """The checkpoint to resume from, or None if the run has made none.

    Raises:
        CheckpointError: the tracker names one that is not there.
    """
    tracker = run / TRACKER
    if not tracker.exists():
        return None
    text = tracker.read_text().strip()
    folder = run / f"{_PREFIX}{text}"
    if not text.isdecimal() or not folder.is_dir():
        raise CheckpointError(
            f"{tracker} names step {text!r}, but there is no {folder}; write the number of an existing checkpoint "
            "into it, or remove it to start anew"
        )
    return folder


def step_of(folder: Path) -> int:
    """N of ``.../global_step_N``.

    Raises:
        CheckpointError: the folder is not called so, or is not there.
    """
    number = folder.name.removeprefix(_PREFIX)
    if not number.isdecimal() or not folder.is_dir():
        raise CheckpointError(
            f"trainer.resume_from_path={folder} is not a checkpoint: give an existing .../{_PREFIX}N folder"
        )
    return int(number)
