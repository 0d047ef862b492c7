"""Limits that a worker process puts on itself before it reads anything that a model wrote."""

import ctypes
import os
import resource
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_FORBIDDEN_EVENTS = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen", "pty.spawn"}
    | {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"}
    | {"socket.__new__", "socket.connect", "socket.bind", "ctypes.dlopen", "ctypes.dlsym", "os.kill", "os.putenv"}
)
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


class ForbiddenError(RuntimeError):
    """A worker process tried to do something that judging never needs."""


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux); exit at once if the parent is already dead.

    Args:
        parent_pid: process id of the parent, which must have a single thread: the kernel acts when the thread that
            forked this process ends.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def limit_resources(address_space_bytes: int) -> None:
    """Limit the address space, and forbid core dumps and writing to files.

    Args:
        address_space_bytes: the limit in bytes.
    """
    resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def forbid_code() -> None:
    """Forbid this process to compile text as Python, open files for writing, start processes or create sockets.

    No known path leads from an answer to any of these once `upstream.apply` has run; this closes the unknown ones. The
    ban cannot be lifted.
    """
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "compile":
        # An import compiles a file under the file's name; eval and exec compile text under the name '<string>'.
        if not str(arguments[1]).endswith(".py"):
            raise ForbiddenError("compiling text is forbidden")
    elif event == "open":
        _, mode, flags = arguments
        if (isinstance(flags, int) and flags & _WRITE_FLAGS) or (isinstance(mode, str) and set(mode) & set("wax+")):
            raise ForbiddenError("writing files is forbidden")
    elif event in _FORBIDDEN_EVENTS:
        raise ForbiddenError(f"{event} is forbidden")
