"""The fork server: `python -m verl_relift.rewards.judge.fork_server FD PARENT_PID MEMORY_MIB`.

The fork server loads math-verify once and never reads an answer, so it can replace a killed worker within milliseconds.
It has a single thread, which makes forking safe and lets its workers die with it. It ends its workers and itself when
the pool closes its side of the control socket, or when the pool's process is gone.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys

from ..settings import MIB
from . import sandbox, wire

_PARENT_CHECK_S = 2.0
_KNOWN = ((r"x+\sqrt{9}", r"3+x"),)


def main(arguments: list[str]) -> None:
    """Load math-verify, then fork and kill workers as the pool asks.

    Args:
        arguments: file descriptor of the control socket, process id of the pool, address space of a worker in MiB.
    """
    control_fd, pool_pid, memory_mib = map(int, arguments)
    control = socket.socket(fileno=control_fd)
    try:
        from . import verdict

        verdict.prepare()
    except Exception as error:
        wire.send(control, {"error": f"{type(error).__name__}: {error}"})
        raise
    _silence_stderr()
    gc.collect()
    gc.freeze()
    wire.send(control, {"ready": os.getpid()})
    workers: dict[int, int] = {}
    try:
        _serve(control, pool_pid, memory_mib * MIB, workers)
    finally:
        for pid in workers.values():
            _kill(pid)
            os.waitpid(pid, 0)


def _serve(control: socket.socket, pool_pid: int, memory_bytes: int, workers: dict[int, int]) -> None:
    """Fork and kill workers until the pool is gone; `workers` maps a worker's number to its process id.

    The fork server sends no replies here, so the pool never waits for it.
    """
    killed: list[int] = []
    while True:
        readable, _, _ = select.select([control], [], [], _PARENT_CHECK_S)
        killed = [pid for pid in killed if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if not readable:
            # A process forked from the pool's process can keep the socket open after the pool's process died.
            if os.getppid() != pool_pid:
                return
            continue
        command, fds, _, _ = socket.recv_fds(control, wire.COMMAND.size, maxfds=1)
        if len(command) < wire.COMMAND.size:  # end of file: the pool closed the socket
            return
        name, number = wire.COMMAND.unpack(command)
        if name == wire.FORK:
            workers[number] = _fork_worker(control, fds[0], memory_bytes)
            os.close(fds[0])
        elif name == wire.KILL and number in workers:
            # Only this loop reaps workers, so no other process can get the pid before it is reaped.
            pid = workers.pop(number)
            _kill(pid)
            killed.append(pid)


def _fork_worker(control: socket.socket, worker_fd: int, memory_bytes: int) -> int:
    """Fork a worker and return its process id; the child never returns."""
    fork_server_pid = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        sandbox.die_with_parent(fork_server_pid)
        control.close()
        _run_worker(socket.socket(fileno=worker_fd), memory_bytes)
        status = 0
    finally:
        os._exit(status)  # the child must neither return to the fork server's loop nor run its exit handlers


def _run_worker(pool: socket.socket, memory_bytes: int) -> None:
    """Judge what the pool sends until it closes the socket."""
    from .verdict import Verdict, judge

    sys.dont_write_bytecode = True  # a module that is imported late would otherwise fail, because writing is forbidden
    sandbox.limit_resources(memory_bytes)
    sandbox.forbid_code()
    with contextlib.suppress(wire.ClosedError):
        # What fails inside a comparison counts as a wrong answer, so a worker that can compare nothing must not start.
        if judge(_KNOWN) is not Verdict.CORRECT:
            wire.send(pool, {"error": "a worker process cannot compare two equal sums within its limits"})
            return
        wire.send(pool, {"ready": os.getpid()})
        while True:
            request = wire.receive(pool)
            wire.send(pool, {"verdict": judge(request["pairs"])})


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _silence_stderr() -> None:
    """Discard stderr, on which sympy warns about hostile input."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stderr.fileno())
    os.close(null)


if __name__ == "__main__":
    main(sys.argv[1:])
