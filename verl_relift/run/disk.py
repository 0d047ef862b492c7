"""Say in one line that a file system is full, whatever the error was by which that came to light.

Libraries report it in many ways: an OSError, an assertion about a writer's thread, a message of Rust's or C++'s with or
without the reason in it. So besides the errors, the file systems themselves are asked.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

# sysexits.h: an error while doing I/O. Starting again would only fill the disk again.
EXIT_STATUS = os.EX_IOERR

_FULL = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded"}
_TEXT = re.compile(r"No space left on device|Disk quota exceeded")
_PROBE_BYTES = 1 << 16


class DiskFull(RuntimeError):
    """A file system is full. The message is one line: which one, and what to do."""


def full(error: BaseException, folders: Sequence[Path]) -> str | None:
    """Explain `error` in one line if a full file system is its cause.

    Args:
        error: what ended the run.
        folders: where the run writes, that of its checkpoints first.

    Returns:
        The line, or None if the cause is another one.
    """
    told, where = None, None
    for one in _chain(error):
        if isinstance(one, DiskFull):
            return str(one)
        if isinstance(one, OSError) and one.errno in _FULL:
            told, where = _FULL[one.errno], one.filename
            break
        found = _TEXT.search(str(one))
        told = told or (found and found[0])
    filled = [(folder, reason) for folder in folders if (reason := _refuses(folder))]
    if told is None and not filled:
        return None
    place, reason = filled[0] if filled else (folders[0], told)
    if where and Path(where).is_absolute():
        place, reason = Path(where).parent, told
    return f"{reason}: {_described(place)}; make room there, or choose another place"


def cannot_write(error: OSError, folder: Path) -> str:
    """Explain in one line why a run can't start in its folder."""
    reason = _FULL.get(error.errno) or os.strerror(error.errno or 0)
    where = error.filename or folder
    return f"trainer.default_local_dir={folder}: {where}: {reason}; choose a folder that you can write to"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen, waiting = set(), [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            # `cause` is Ray's, of an error in another process.
            more = (one.__cause__, one.__context__, getattr(one, "cause", None))
            waiting += [other for other in more if isinstance(other, BaseException)]


def _refuses(folder: Path) -> str | None:
    """Why the file system of a folder takes nothing more; None if it does."""
    probe = _existing(folder) / f".space.{os.getpid()}"
    try:
        with open(probe, "wb", buffering=0) as file:
            left = _PROBE_BYTES
            while left:
                left -= file.write(bytes(left))
            os.fsync(file)
    except OSError as error:
        return _FULL.get(error.errno)
    finally:
        probe.unlink(missing_ok=True)
    return None


def _described(place: Path) -> str:
    place = _existing(place)
    mount = place.resolve()
    while not mount.is_mount():
        mount = mount.parent
    usage = shutil.disk_usage(place)
    return f"the file system {mount} has {_size(usage.free)} of {_size(usage.total)} free ({place})"


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
