"""The process that judges are forked from: `python -m verl_relift.rewards.judge.fork_server FD PARENT_PID MEMORY_MIB`.

It loads math-verify once and never touches an answer, so a killed judge is replaced in milliseconds. It has one thread,
which makes forking safe and lets its judges die with it. It ends, and ends them, when the pool's side of its socket
closes or the pool's process is gone.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys

from ..settings import MIB
from . import sandbox, wire

COMMAND = struct.Struct("!cI")  # what to do with the judge of which number; a fork carries the judge's socket
FORK, KILL = b"f", b"k"
_PARENT_CHECK_S = 2.0


def main(arguments: list[str]) -> None:
    """Load the judge, then fork and kill judges as the pool asks."""
    control_fd, pool_pid, memory_mib = map(int, arguments)
    control = socket.socket(fileno=control_fd)
    try:
        from . import judge

        judge.prepare()
    except Exception as error:
        wire.send(control, {"error": f"{type(error).__name__}: {error}"})
        raise
    _silence()
    gc.collect()
    gc.freeze()
    wire.send(control, {"ready": os.getpid()})
    judges: dict[int, int] = {}
    try:
        _serve(control, pool_pid, memory_mib * MIB, judges)
    finally:
        for pid in judges.values():
            _kill(pid)
            os.waitpid(pid, 0)


def _serve(control: socket.socket, pool_pid: int, memory_bytes: int, judges: dict[int, int]) -> None:
    """Fork and kill judges; `judges` holds their pids by number. Nothing is answered, so the pool never waits here."""
    ended: list[int] = []
    while True:
        readable, _, _ = select.select([control], [], [], _PARENT_CHECK_S)
        ended = [pid for pid in ended if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if not readable:
            # A process forked from the pool's may hold its socket open after it has died.
            if os.getppid() != pool_pid:
                return
            continue
        command, fds, _, _ = socket.recv_fds(control, COMMAND.size, maxfds=1)
        if len(command) < COMMAND.size:  # end of file: the pool is closed
            return
        name, number = COMMAND.unpack(command)
        if name == FORK:
            judges[number] = _fork(control, fds[0], memory_bytes)
            os.close(fds[0])
        elif name == KILL and number in judges:
            # Reaped later, and by nobody else, so that until then the pid is no other process's.
            pid = judges.pop(number)
            _kill(pid)
            ended.append(pid)


def _fork(control: socket.socket, judge_fd: int, memory_bytes: int) -> int:
    forge_pid = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        sandbox.die_with_parent(forge_pid)
        control.close()
        _judge_forever(socket.socket(fileno=judge_fd), memory_bytes)
        status = 0
    finally:
        os._exit(status)  # never back into the forge's loop, and no exit handlers of its


def _judge_forever(pool: socket.socket, memory_bytes: int) -> None:
    from .judge import judge

    sandbox.limit_resources(memory_bytes)
    sandbox.forbid_code()
    with contextlib.suppress(wire.ClosedError):
        wire.send(pool, {"ready": os.getpid()})
        while True:
            request = wire.receive(pool)
            wire.send(pool, {"verdict": judge(request["pairs"])})


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _silence() -> None:
    """sympy warns on stderr about hostile input."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stderr.fileno())
    os.close(null)


if __name__ == "__main__":
    main(sys.argv[1:])
