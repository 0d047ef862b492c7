"""Keep what a run leaves on this machine in one folder, and remove what this user's dead runs have left.

A run that is killed can't remove its shared memory and its temporary files. So each run holds a folder, whose name says
when it started, and in which its processes make their temporary files. Who finds such a folder held by nobody removes
it, and the shared memory that was created since then and is in no one's use.
"""

import atexit
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import private

_FOLDER = "relift-run-"
_SHARED_MEMORY = Path("/dev/shm")
# Python's shared_memory, vLLM's CPU communicator (with and without a name of its own) and verl's weight transfer.
_SEGMENT = re.compile(r"psm_[0-9a-f]+|(vllm_dist_[0-9a-f]+|\d+)-[\w:]+-\[[\d-]+\]-cpushm_\d+|verl_weights_.+")
# What is younger may be about to be used.
_YOUNG_SECONDS = 2.0


def note_this_run(parent: Path | None = None) -> None:
    """Do as `temporary_files` until this process ends."""
    at_end, own = ExitStack(), os.getpid()
    at_end.enter_context(temporary_files(parent))

    def release() -> None:
        if os.getpid() == own:
            at_end.close()

    atexit.register(release)


@contextmanager
def temporary_files(parent: Path | None = None) -> Iterator[Path]:
    """Let this process and those that it starts make their temporary files in a folder that is removed in the end.

    Libraries leave files behind there: locks of checkpoints (verl), sockets (vLLM), staging folders (wandb). Some of
    their names can be guessed, which matters in a folder where every user may create files.

    Args:
        parent: where to make the folder; None: where temporary files are made so far.

    Yields:
        The folder. Only this user can open it, and this process holds it.
    """
    before = os.environ.get("TMPDIR")
    folder = private.create(f"{_FOLDER}{int(time.time())}-", parent or Path(tempfile.gettempdir()))
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    try:
        yield folder
    finally:
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before
        tempfile.tempdir = None
        private.release(folder)
        shutil.rmtree(folder, ignore_errors=True)


def folder_of_this_run() -> Path | None:
    """Return the folder of `temporary_files` if this process is in it or was started by one that is."""
    folder = Path(tempfile.gettempdir())
    if not folder.name.startswith(_FOLDER):
        return None
    private.check(folder)
    return folder


def remove(parent: Path | None = None, memory: Path = _SHARED_MEMORY) -> list[str]:
    """Remove what dead runs have left.

    Args:
        parent: where runs make their folders; None: where temporary files are made.
        memory: folder of the shared memory.

    Returns:
        The paths of the shared memory removed, sorted.
    """
    folders = private.remove_unheld(_FOLDER, parent or Path(tempfile.gettempdir()))
    dead = [folder.name.removeprefix(_FOLDER).split("-")[0] for folder in folders]
    return remove_segments(min(map(float, dead)), memory) if dead else []


def remove_segments(since: float, memory: Path = _SHARED_MEMORY) -> list[str]:
    """Unlink this user's shared memory that no living process maps.

    Args:
        since: only segments created at or after this time, in Unix seconds.
        memory: folder of the shared memory.

    Returns:
        The paths of the segments removed, sorted.
    """
    left = _segments(memory, since)
    time.sleep(max([0.0, *(created + _YOUNG_SECONDS - time.time() for created in left.values())]))
    removed = _unmapped(left)
    for path in removed:
        path.unlink(missing_ok=True)
    return [str(path) for path in removed]


def _segments(folder: Path, since: float) -> dict[Path, float]:
    """This user's segments that were created since then, with the time of their creation."""
    found = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        if _SEGMENT.fullmatch(entry.name):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if status.st_uid == os.getuid() and stat.S_ISREG(status.st_mode) and status.st_ctime >= since:
                found[Path(entry.path)] = status.st_ctime
    return found


def _unmapped(segments: dict[Path, float]) -> list[Path]:
    """Those that no process has in its memory, sorted."""
    left = set(segments)
    for maps in Path("/proc").glob("[0-9]*/maps") if left else ():
        try:
            text = maps.read_text()
        except OSError:
            continue  # the process has ended, or belongs to another user
        left = {path for path in left if str(path) not in text}
    return sorted(left)
