"""Worker processes for the judge, with hard limits of time and memory.

`WorkerPool.judge` blocks its thread until a worker answers or is killed. Any number of threads and event loops in one
process may share a pool. When a worker is killed, only the answer that it was judging is affected: it gets `timed_out`.
The next worker is forked at once, and nobody waits for the killed one.
"""

import contextlib
import itertools
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from ..compare import Pair
from ..outcome import GradeOutcome
from ..settings import PoolSettings
from . import wire

_FORK_LIMIT_S = 30.0
_CLOSE_LIMIT_S = 5.0
# The limit counts the worker's processor time. On a busy machine a comparison may take this many times as long.
_PATIENCE = 24
_SHORTEST_WAIT_S = 0.02
# A worker that ended without being killed by the pool gets a second attempt: another program may have ended it.
_ATTEMPTS = (1, 2)
# A worker is replaced after this many answers, before sympy's caches use noticeable memory.
_ANSWERS_PER_WORKER = 2_000

_OUTCOMES = {
    "correct": GradeOutcome.CORRECT,
    "wrong": GradeOutcome.WRONG,
    "exhausted": GradeOutcome.TIMED_OUT,
    "unparsable": GradeOutcome.GROUND_TRUTH_UNPARSABLE,
}


@dataclass(slots=True)
class _Worker:
    """A worker process as the pool knows it."""

    number: int  # the fork server's name for the process
    sock: socket.socket
    pid: int | None = None  # what the process has reported once it runs
    answered: int = 0


class WorkerPool:
    """Up to `settings.workers` worker processes, started when the first answer needs one.

    The pool is thread-safe. When its process forks, the workers stay with the parent, and the child starts its own when
    it needs one.
    """

    def __init__(self, settings: PoolSettings | None = None) -> None:
        self.settings = settings or PoolSettings()
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        self._fork_server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # guards the control socket and the start of the fork server
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self.settings.workers):
            self._idle.put(None)  # a slot for a worker that is not forked yet

    def start(self) -> None:
        """Start the fork server and fork all workers now instead of at the first answer.

        The first start takes seconds, because the fork server loads sympy.

        Raises:
            RuntimeError: math-verify cannot be loaded.
        """
        idle: list[_Worker | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._idle.get_nowait())
        try:
            idle = [worker or self._fork_worker() for worker in idle]
        finally:
            for worker in idle:
                self._idle.put(worker)

    def judge(self, pairs: tuple[Pair, ...]) -> tuple[GradeOutcome, str]:
        """Compare (answer, ground truth) pairs in a worker process.

        The time limit counts the processor seconds of the worker. Waiting for an idle worker, or for a processor, does
        not count, so a verdict does not depend on how busy the machine is.

        Args:
            pairs: the answer is correct if any pair is equal.

        Returns:
            The outcome, and the reason if the worker was stopped (empty otherwise).

        Raises:
            RuntimeError: no worker can be started.
        """
        worker = self._idle.get()
        try:
            if worker is not None and worker.answered >= _ANSWERS_PER_WORKER:
                worker = self._replace(worker)
            remaining_s = self.settings.time_limit_s
            for attempt in _ATTEMPTS:
                given, worker = worker, None
                worker = self._ready_worker(given)
                started = time.monotonic()
                try:
                    return self._ask(worker, pairs, remaining_s)
                except TimeoutError:
                    worker = self._replace(worker)
                    return GradeOutcome.TIMED_OUT, f"no verdict in {self.settings.time_limit_s:g} s"
                except (wire.ClosedError, ValueError, KeyError) as error:
                    worker = self._replace(worker)
                    # Loading a new fork server takes longer than an answer may, so only the judging is charged.
                    remaining_s -= time.monotonic() - started
                    reason = f"the worker process ended in attempt {attempt}: {error}"
                except BaseException:
                    # The caller was interrupted. The verdict is still to come and must not go to the next answer.
                    worker = self._replace(worker)
                    raise
            return GradeOutcome.TIMED_OUT, reason
        finally:
            self._idle.put(worker)

    def _ask(self, worker: _Worker, pairs: tuple[Pair, ...], limit_s: float) -> tuple[GradeOutcome, str]:
        deadline = time.monotonic() + limit_s * _PATIENCE
        limit_s += _processor_seconds(worker.pid)
        wire.send(worker.sock, {"pairs": pairs}, deadline)
        remaining_s = limit_s
        while not select.select([worker.sock], [], [], max(remaining_s, _SHORTEST_WAIT_S))[0]:
            remaining_s = limit_s - _processor_seconds(worker.pid)
            if remaining_s <= 0 or time.monotonic() > deadline:
                raise TimeoutError
        verdict = wire.receive(worker.sock, deadline)["verdict"]
        worker.answered += 1
        return _OUTCOMES[verdict], "out of memory" if verdict == "exhausted" else ""

    def _ready_worker(self, worker: _Worker | None) -> _Worker:
        """Return this worker or a new one, once it runs, so that the time limit never includes the fork."""
        if worker is not None and worker.pid is not None:
            return worker
        for _ in _ATTEMPTS:
            worker = worker or self._fork_worker()
            try:
                hello = wire.receive(worker.sock, time.monotonic() + _FORK_LIMIT_S)
            except (TimeoutError, wire.ClosedError) as error:
                reason = error
                self._kill(worker)
                worker = None
            else:
                if "error" in hello:
                    self._kill(worker)
                    raise RuntimeError(f"The math judge does not work: {hello['error']}")
                worker.pid = hello["ready"]
                return worker
        raise RuntimeError(f"no judge process could be forked: {reason}; check that the machine has free memory")

    def _fork_worker(self) -> _Worker:
        """Have a worker forked, starting the fork server if necessary; the worker reports when it runs."""
        with self._lock:
            if self._fork_server is None:
                self._start_fork_server()
            try:
                return self._request_worker()
            except OSError:  # another program ended the fork server, and the workers died with it
                self._stop_fork_server()
                self._start_fork_server()
                return self._request_worker()

    def _request_worker(self) -> _Worker:
        ours, theirs = socket.socketpair()
        number = next(self._numbers)
        with theirs:
            socket.send_fds(self._control, [wire.COMMAND.pack(wire.FORK, number)], [theirs.fileno()])
        return _Worker(number, ours)

    def _replace(self, worker: _Worker) -> _Worker | None:
        """Have a worker killed and its successor forked without waiting; None if the fork server is gone."""
        self._kill(worker)
        with self._lock, contextlib.suppress(OSError):
            return self._request_worker() if self._control is not None else None
        return None

    def _kill(self, worker: _Worker) -> None:
        worker.sock.close()  # ends an idle worker even if the fork server is gone
        with self._lock, contextlib.suppress(OSError):
            if self._control is not None:
                self._control.sendall(wire.COMMAND.pack(wire.KILL, worker.number))

    def _start_fork_server(self) -> None:
        ours, theirs = socket.socketpair()
        package_root = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
        arguments = [str(theirs.fileno()), str(os.getpid()), str(self.settings.memory_limit_mib)]
        with theirs:
            fork_server = subprocess.Popen(
                [sys.executable, "-m", "verl_relift.rewards.judge.fork_server", *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # sympy iterates over sets while it simplifies; a fixed hash seed makes its verdicts reproducible.
                env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
                start_new_session=True,  # Ctrl-C in the terminal is for the trainer to handle
            )
        try:
            hello = wire.receive(ours, time.monotonic() + self.settings.start_limit_s)
        except (TimeoutError, wire.ClosedError) as error:
            hello = {"error": str(error) or type(error).__name__}
        if "error" in hello:
            ours.close()
            fork_server.kill()
            fork_server.wait()
            raise RuntimeError(
                f"The math judge did not start ({hello['error']}); check that math-verify is installed in {sys.prefix}"
            )
        ours.settimeout(None)
        self._fork_server, self._control = fork_server, ours

    def close(self) -> None:
        """End every process of the pool; the pool starts again if it is used again."""
        with self._lock:
            if self._fork_server is not None:
                self._drop_idle_workers()
                self._stop_fork_server()

    def _stop_fork_server(self) -> None:
        fork_server, control = self._fork_server, self._control
        self._fork_server = self._control = None
        control.close()  # the fork server then ends its workers and itself
        try:
            fork_server.wait(_CLOSE_LIMIT_S)
        except subprocess.TimeoutExpired:
            fork_server.kill()
            fork_server.wait()

    def _drop_idle_workers(self) -> None:
        """Forget the idle workers; a thread that uses a busy worker drops it when it finds the worker dead."""
        slots = 0
        with contextlib.suppress(queue.Empty):
            while True:
                worker = self._idle.get_nowait()
                slots += 1
                if worker is not None:
                    worker.sock.close()
        for _ in range(slots):
            self._idle.put(None)

    def _reset_after_fork(self) -> None:
        """Start over in a forked child: the processes belong to the parent, so close this copy of the socket."""
        if self._control is not None:
            self._control.close()
            self._fork_server.returncode = 0  # it is not a child of this process: Popen must not wait for it
        self._reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 if the process has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _reset_pools_after_fork() -> None:
    for pool in list(_pools):
        pool._reset_after_fork()


os.register_at_fork(after_in_child=_reset_pools_after_fork)
