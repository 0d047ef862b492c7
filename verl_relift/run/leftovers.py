"""Remove what this user's dead runs have left on this machine.

A run that is killed can't remove its shared memory and its sockets. So each run holds a folder, whose name says when it
started. Who finds such a folder held by nobody removes what was created since then and is in no one's use.
"""

import atexit
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from . import private

_FOLDER = "relift-run-"
# Python's shared_memory, vLLM's CPU communicator (with and without a name of its own) and verl's weight transfer.
_SEGMENT = re.compile(r"psm_[0-9a-f]+|(vllm_dist_[0-9a-f]+|\d+)-[\w:]+-\[[\d-]+\]-cpushm_\d+|verl_weights_.+")
# vLLM's.
_SOCKET = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What is younger may be about to be used.
_YOUNG_SECONDS = 2.0


def note_this_run(parent: Path = private.PARENT) -> None:
    """Hold a folder until this process ends."""
    folder, own = private.create(f"{_FOLDER}{int(time.time())}-", parent), os.getpid()

    def release() -> None:
        if os.getpid() == own:
            private.release(folder)
            folder.rmdir()

    atexit.register(release)


def remove(parent: Path = private.PARENT, memory: Path = Path("/dev/shm"), temporary: Path | None = None) -> list[str]:
    """Remove what dead runs have left.

    Args:
        parent: where runs hold their folders.
        memory: folder of the shared memory.
        temporary: folder of the sockets; None: the one for temporary files.

    Returns:
        The paths removed, sorted.
    """
    dead = [folder.name.removeprefix(_FOLDER).split("-")[0] for folder in private.remove_unheld(_FOLDER, parent)]
    if not dead:
        return []
    since = min(map(float, dead))
    left = _candidates(memory, _SEGMENT, stat.S_ISREG, since)
    left |= _candidates(temporary or Path(tempfile.gettempdir()), _SOCKET, stat.S_ISSOCK, since)
    time.sleep(max([0.0, *(created + _YOUNG_SECONDS - time.time() for created in left.values())]))
    removed = [*_unmapped(path for path in left if path.parent == memory)]
    removed += _unbound(path for path in left if path.parent != memory)
    for path in removed:
        path.unlink(missing_ok=True)
    return sorted(map(str, removed))


def _candidates(folder: Path, name: re.Pattern, kind, since: float) -> dict[Path, float]:
    """This user's files of that name and kind that were created since then, with the time of their creation."""
    found = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        if name.fullmatch(entry.name):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if status.st_uid == os.getuid() and kind(status.st_mode) and status.st_ctime >= since:
                found[Path(entry.path)] = status.st_ctime
    return found


def _unmapped(segments: Iterable[Path]) -> list[Path]:
    """Those that no process has in its memory."""
    left = set(segments)
    for maps in Path("/proc").glob("[0-9]*/maps") if left else ():
        try:
            text = maps.read_text()
        except OSError:
            continue  # the process has ended, or belongs to another user
        left = {path for path in left if str(path) not in text}
    return sorted(left)


def _unbound(sockets: Iterable[Path]) -> list[Path]:
    """Those that no process listens on."""
    bound = Path("/proc/net/unix").read_text()
    # A process of another network namespace is not in that list, but it answers.
    return sorted(path for path in sockets if str(path) not in bound and not _answers(path))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True
