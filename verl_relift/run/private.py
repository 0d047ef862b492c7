"""Folders of one run and one user below /tmp, where every user of a machine may create, and none may remove another's.

Another user may have made a folder of the same name before, to put files or links into it that this user then opens. So
a folder is used only if it is this user's and closed to everybody else. A process holds the folders that it uses. The
kernel lets go of what a process held, however it ends, so a folder that nobody holds was left by a run that is dead.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

# Not TMPDIR: the path of a socket has at most 107 characters, and both sides of a socket must find it.
PARENT = Path("/tmp")

_held: dict[Path, int] = {}  # open descriptors, by folder


class NotPrivate(PermissionError):
    """A folder that another user owns or can open."""


def check(folder: Path) -> None:
    """Refuse a folder that anybody but this user can use.

    Raises:
        NotPrivate: it is a link or no folder, another user's, or open to other users.
        FileNotFoundError: it does not exist.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotPrivate(f"{folder}: not a folder; remove it")
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise NotPrivate(f"{folder}: belongs to user {status.st_uid} with mode {mode:o}; remove it")


def create(prefix: str, parent: Path = PARENT) -> Path:
    """Make a folder with a name that nobody could guess, and hold it."""
    return hold(Path(tempfile.mkdtemp(prefix=prefix, dir=parent)))


def hold(folder: Path) -> Path:
    """Make a folder unless it is there, and keep `remove_unheld` from removing it as long as this process lives.

    Returns:
        The folder.

    Raises:
        NotPrivate: there is one that anybody but this user can use.
    """
    while folder not in _held:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        try:
            check(folder)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # another run has just removed it as one that nobody holds
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if folder.exists() and os.path.samestat(os.fstat(descriptor), folder.lstat()):
            _held[folder] = descriptor
        else:
            os.close(descriptor)
    return folder


def release(folder: Path) -> None:
    """Stop holding a folder."""
    descriptor = _held.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)


def remove_unheld(prefix: str, parent: Path = PARENT, older_than: float = 0.0) -> list[Path]:
    """Remove this user's folders whose name begins with `prefix` and that no process holds.

    Args:
        older_than: leave those that were made in this many seconds before now.

    Returns:
        The folders removed.
    """
    removed = []
    for folder in sorted(parent.glob(f"{prefix}*")):
        try:
            check(folder)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's, or gone
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_mtime <= time.time() - older_than:
                shutil.rmtree(folder)
                removed.append(folder)
        except OSError:
            continue  # held
        finally:
            os.close(descriptor)
    return removed
