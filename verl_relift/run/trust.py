"""Whose files a checkpoint is made of. Loading one is trusting whoever could write it: weights, data, and pickles."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

TRUST = "relift.resume.trust_others"


class Untrusted(RuntimeError):
    """Somebody else could have written a checkpoint. The message says who, and what to do."""


def require_own(checkpoint: Path) -> None:
    """Check that nobody but this user, and root, could have written what is in a checkpoint's folder, or put it there.

    Raises:
        Untrusted: a file or folder belongs to somebody else, or others may write to it.
    """
    for path, status in _everything(checkpoint):
        if status.st_uid not in (os.getuid(), 0):
            problem = f"belongs to {_user(status.st_uid)}"
            fix = f"copy it to a folder of yours (cp -r makes the copy yours), or set {TRUST}=true if you trust them"
        elif others := _other_writers(status):
            problem = f"can be written by {others}"
            fix = f"chmod -R go-w {checkpoint.parent}, or set {TRUST}=true if you trust them"
        else:
            continue
        raise Untrusted(f"{path} {problem}, so loading the checkpoint would run what they put there; {fix}")


def require_closed(folder: Path, file: Path) -> None:
    """Check before training that a run will be able to resume from what it writes.

    Args:
        folder: the run's.
        file: one that this process has made in it, as the umask says.

    Raises:
        Untrusted: others may write into the folder, or to what the run makes in it.
    """
    for path in (folder, file):
        if others := _other_writers(path.stat()):
            raise Untrusted(
                f"{path} can be written by {others}, so a resumed run would refuse the checkpoints here; umask 022 and "
                f"chmod -R go-w {folder}, or set {TRUST}=true if you trust them"
            )


def _everything(checkpoint: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The checkpoint's folder, the one it is in, and all below it, behind links too."""
    yield checkpoint.resolve().parent, checkpoint.resolve().parent.stat()
    waiting, seen = [checkpoint], set()
    while waiting:
        path = waiting.pop()
        if path.is_symlink():
            yield path, path.lstat()
        status = path.stat()
        yield path, status
        if stat.S_ISDIR(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            waiting += sorted(path.iterdir())


def _other_writers(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return None  # its bits mean nothing
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX  # nobody replaces another's files in it
    if status.st_mode & stat.S_IWOTH and not sticky:
        return "everybody"
    if status.st_mode & stat.S_IWGRP and not sticky and not _is_private(status.st_gid):
        return f"the group {_group(status.st_gid)}"
    return None


def _is_private(gid: int) -> bool:
    """Whether the group has this user alone, as many systems make one of the same name for each; or is root's."""
    if gid == 0:
        return True
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
