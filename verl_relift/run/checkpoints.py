"""The folders of a run's checkpoints. A checkpoint appears under its name only when it is complete.

global_step_N.partial/               being written; a killed run leaves it, and the next save removes it
global_step_N/                       complete
latest_checkpointed_iteration.txt    the tracker: N of the checkpoint to resume from, written last
"""

import json
import shutil
from pathlib import Path

from . import folder as runfolder

TRACKER = runfolder.TRACKER
# In a checkpoint's folder: the method's name and state, and the state of what reads the metrics of recorded steps.
STATE_FILE, RECORDED_FILE = Path("relift") / "state.json", Path("relift") / "recorded.json"
_PREFIX, _PARTIAL = "global_step_", ".partial"


class CheckpointError(RuntimeError):
    """The checkpoint to resume from can't be used. The message says what to do."""


def begin(run: Path, step: int) -> Path:
    """Create an empty folder for the checkpoint of `step` and remove what killed runs have left.

    Returns:
        The folder to write into, to be passed to `commit` by its step.
    """
    discard_partial(run)
    folder = partial(run, step)
    folder.mkdir(parents=True)
    return folder


def partial(run: Path, step: int) -> Path:
    """Return the folder that the checkpoint of `step` is written to."""
    return run / f"{_PREFIX}{step}{_PARTIAL}"


def discard_partial(run: Path) -> None:
    """Remove checkpoints that were not written to their end."""
    for leftover in run.glob(f"{_PREFIX}*{_PARTIAL}"):
        shutil.rmtree(leftover)


def forget(run: Path) -> None:
    """Let the run start from step 0: a checkpoint of an earlier run is not resumed from any more, but kept."""
    (run / TRACKER).unlink(missing_ok=True)


def commit(run: Path, step: int) -> Path:
    """Give the folder of `begin` its final name, then point the tracker to it.

    Returns:
        The checkpoint's folder.
    """
    folder = run / f"{_PREFIX}{step}"
    if folder.exists():
        # From a run that was killed before it wrote the tracker, or that resumed from an earlier step.
        shutil.rmtree(folder)
    partial(run, step).rename(folder)
    runfolder.write_atomically(run / TRACKER, str(step))
    return folder


def prune(run: Path, keep: int | None) -> None:
    """Remove complete checkpoints except the `keep` newest up to the one that the tracker names, and later ones.

    Args:
        run: the run's folder.
        keep: number of checkpoints; None or 0 keeps all.
    """
    if not keep:
        return
    latest = int((run / TRACKER).read_text())
    steps = sorted(
        int(name) for path in run.glob(f"{_PREFIX}*") if (name := path.name.removeprefix(_PREFIX)).isdecimal()
    )
    # Later ones are of an earlier run in this folder, or of this one before the user went back.
    for step in [step for step in steps if step < latest][: -keep + 1 or None]:
        shutil.rmtree(run / f"{_PREFIX}{step}")


def latest(run: Path) -> Path | None:
    """Find the checkpoint to resume from.

    Returns:
        Its folder, or None if the run has saved none.

    Raises:
        CheckpointError: the tracker names a checkpoint that does not exist.
    """
    tracker = run / TRACKER
    if not tracker.exists():
        return None
    text = tracker.read_text().strip()
    folder = run / f"{_PREFIX}{text}"
    if not text.isdecimal() or not folder.is_dir():
        raise CheckpointError(
            f"{tracker} names step {text!r}, but {folder} does not exist; write the number of an existing checkpoint "
            "into it, or remove it to start from step 0"
        )
    return folder


def step_of(folder: Path) -> int:
    """Read N from the name `.../global_step_N`.

    Raises:
        CheckpointError: the folder has another name or does not exist.
    """
    number = folder.name.removeprefix(_PREFIX)
    if not number.isdecimal() or not folder.is_dir():
        raise CheckpointError(
            f"trainer.resume_from_path={folder} is not a checkpoint; give an existing folder .../{_PREFIX}N"
        )
    return int(number)


def require_method(folder: Path, method: str) -> None:
    """Check that a run of `method` can resume from the checkpoint in `folder`.

    Raises:
        CheckpointError: another program or another method made it.
    """
    path = folder / STATE_FILE
    way_out = "resume with that method, or start from its weights in another folder (actor_rollout_ref.model.path)"
    if not path.exists():
        raise CheckpointError(f"{path} is missing: another program made the checkpoint; {way_out}")
    made_by = json.loads(path.read_text()).get("method", method)
    if made_by != method:
        raise CheckpointError(f"method={method} can't resume from {folder}, which method={made_by} made; {way_out}")
