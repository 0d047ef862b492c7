"""Limits that a judge process puts on itself before it reads anything that a model wrote."""

from __future__ import annotations

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
    """Something in a judge process tried to do what judging never needs."""


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux); exit at once if it is dead already.

    The parent must be single-threaded: the kernel means the thread that forked.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def limit_resources(address_space_bytes: int) -> None:
    """Bound the address space; forbid core dumps and writing to files."""
    resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def forbid_code() -> None:
    """Refuse from here on to compile text as Python, to open files for writing, and to start processes or sockets.

    No way from an answer to any of these is known once `upstream.apply` has run; this closes the unknown ones.
    """
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "compile":
        # An import compiles a file under its name; eval and exec compile text under '<string>'.
        if not str(arguments[1]).endswith(".py"):
            raise ForbiddenError("compiling text is forbidden")
    elif event == "open":
        _, mode, flags = arguments
        if (isinstance(flags, int) and flags & _WRITE_FLAGS) or (isinstance(mode, str) and set(mode) & set("wax+")):
            raise ForbiddenError("writing files is forbidden")
    elif event in _FORBIDDEN_EVENTS:
        raise ForbiddenError(f"{event} is forbidden")
