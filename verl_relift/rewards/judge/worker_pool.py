"""Judge processes with a hard limit of time and memory, for any number of threads and event loops in one process.

`JudgePool.judge` blocks its thread until a judge process has answered or has been killed. A kill costs the answer that
caused it a `timed_out`; nobody waits for it, nor for the next process, which is forked at once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from ..compare import Pair
from ..outcome import GradeOutcome
from ..settings import PoolSettings
from . import wire

# forge.COMMAND, FORK, KILL: importing forge here would make `-m` load it twice
_COMMAND = struct.Struct("!cI")
_FORK, _KILL = b"f", b"k"
_FORK_LIMIT_S = 30.0
_CLOSE_LIMIT_S = 5.0
# A judge that ended without being killed gets a second chance: something else on the machine may have ended it.
_ATTEMPTS = (1, 2)
# A judge is replaced after so many answers, before what sympy caches weighs anything.
_ANSWERS_PER_JUDGE = 2_000

_OUTCOMES = {
    "correct": GradeOutcome.CORRECT,
    "wrong": GradeOutcome.WRONG,
    "exhausted": GradeOutcome.TIMED_OUT,
    "unparsable": GradeOutcome.GROUND_TRUTH_UNPARSABLE,
}


@dataclass(slots=True)
class _Judge:
    number: int  # the forge's name for it
    sock: socket.socket
    ready: bool = False  # has said that it runs
    answered: int = 0


class JudgePool:
    """Up to `settings.workers` judge processes, started when the first answer needs one.

    Thread-safe. A process that forks leaves the pool to its parent: the child starts its own when it needs one.
    """

    def __init__(self, settings: PoolSettings | None = None) -> None:
        self.settings = settings or PoolSettings()
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        self._forge: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # the forge's socket, and starting it
        self._idle: queue.LifoQueue[_Judge | None] = queue.LifoQueue()
        for _ in range(self.settings.workers):
            self._idle.put(None)  # a place for a judge that is not forked yet

    def start(self) -> None:
        """Load the judge and fork its processes now instead of at the first answer. Takes seconds the first time.

        Raises RuntimeError when it does not load.
        """
        idle: list[_Judge | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._idle.get_nowait())
        try:
            idle = [worker or self._fork() for worker in idle]
        finally:
            for worker in idle:
                self._idle.put(worker)

    def judge(self, pairs: tuple[Pair, ...]) -> tuple[GradeOutcome, str]:
        """Compare (answer, ground truth) pairs in a judge process: correct if any is equal.

        Returns the outcome and, where it was stopped, the reason. Waiting for a free process does not count as time.
        """
        worker = self._idle.get()
        try:
            if worker is not None and worker.answered >= _ANSWERS_PER_JUDGE:
                worker = self._replace(worker)
            remaining_s = self.settings.time_limit_s
            for attempt in _ATTEMPTS:
                given, worker = worker, None
                worker = self._running(given)
                started = time.monotonic()
                try:
                    return self._ask(worker, pairs, started + remaining_s)
                except TimeoutError:
                    worker = self._replace(worker)
                    return GradeOutcome.TIMED_OUT, f"no verdict in {self.settings.time_limit_s:g} s"
                except (wire.ClosedError, ValueError, KeyError) as error:
                    worker = self._replace(worker)
                    remaining_s -= time.monotonic() - started  # a new forge takes longer to load than an answer may
                    reason = f"the judge process ended in attempt {attempt}: {error}"
                except BaseException:
                    # Interrupted: its verdict is still to come and must not be taken for the next answer's.
                    worker = self._replace(worker)
                    raise
            return GradeOutcome.TIMED_OUT, reason
        finally:
            self._idle.put(worker)

    def _ask(self, worker: _Judge, pairs: tuple[Pair, ...], deadline: float) -> tuple[GradeOutcome, str]:
        wire.send(worker.sock, {"pairs": pairs}, deadline)
        verdict = wire.receive(worker.sock, deadline)["verdict"]
        worker.answered += 1
        return _OUTCOMES[verdict], "out of memory" if verdict == "exhausted" else ""

    def _running(self, worker: _Judge | None) -> _Judge:
        """A judge that runs, so that an answer's time starts when its judge does: this one, or a new one."""
        if worker is not None and worker.ready:
            return worker
        for _ in _ATTEMPTS:
            worker = worker or self._fork()
            try:
                wire.receive(worker.sock, time.monotonic() + _FORK_LIMIT_S)
            except (TimeoutError, wire.ClosedError) as error:
                reason = error
                self._kill(worker)
                worker = None
            else:
                worker.ready = True
                return worker
        raise RuntimeError(f"no judge process could be forked: {reason}; is the machine out of memory?")

    def _fork(self) -> _Judge:
        """Ask the forge for a judge; it says when it runs."""
        with self._lock:
            if self._forge is None:
                self._start_forge()
            try:
                return self._request_judge()
            except OSError:  # something ended the forge, and its judges with it
                self._end_forge()
                self._start_forge()
                return self._request_judge()

    def _request_judge(self) -> _Judge:
        ours, theirs = socket.socketpair()
        number = next(self._numbers)
        with theirs:
            socket.send_fds(self._control, [_COMMAND.pack(_FORK, number)], [theirs.fileno()])
        return _Judge(number, ours)

    def _replace(self, worker: _Judge) -> _Judge | None:
        """Have a judge killed and its successor forked, waiting for neither. None if the forge is gone too."""
        self._kill(worker)
        with self._lock, contextlib.suppress(OSError):
            return self._request_judge() if self._control is not None else None
        return None

    def _kill(self, worker: _Judge) -> None:
        worker.sock.close()  # and that is all it takes when the forge is gone too
        with self._lock, contextlib.suppress(OSError):
            if self._control is not None:
                self._control.sendall(_COMMAND.pack(_KILL, worker.number))

    def _start_forge(self) -> None:
        ours, theirs = socket.socketpair()
        package_root = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
        arguments = [str(theirs.fileno()), str(os.getpid()), str(self.settings.memory_limit_mib)]
        with theirs:
            forge = subprocess.Popen(
                [sys.executable, "-m", "verl_relift.rewards.judge.fork_server", *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # sympy's simplifier walks sets: a fixed hash makes its verdicts repeat from run to run.
                env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
                start_new_session=True,  # the terminal's Ctrl-C is the trainer's business
            )
        try:
            hello = wire.receive(ours, time.monotonic() + self.settings.start_limit_s)
        except (TimeoutError, wire.ClosedError) as error:
            hello = {"error": str(error) or type(error).__name__}
        if "error" in hello:
            ours.close()
            forge.kill()
            forge.wait()
            raise RuntimeError(f"The math judge did not start ({hello['error']}). Is math-verify installed?")
        ours.settimeout(None)
        self._forge, self._control = forge, ours

    def close(self) -> None:
        """End every process of the pool. The pool starts again if it is used again."""
        with self._lock:
            if self._forge is not None:
                self._drop_judges()
                self._end_forge()

    def _end_forge(self) -> None:
        forge, control = self._forge, self._control
        self._forge = self._control = None
        control.close()  # the forge ends its judges and itself
        try:
            forge.wait(_CLOSE_LIMIT_S)
        except subprocess.TimeoutExpired:
            forge.kill()
            forge.wait()

    def _drop_judges(self) -> None:
        """Forget the idle judges; one that is busy is dropped by the thread that uses it, when it finds it dead."""
        places = 0
        with contextlib.suppress(queue.Empty):
            while True:
                worker = self._idle.get_nowait()
                places += 1
                if worker is not None:
                    worker.sock.close()
        for _ in range(places):
            self._idle.put(None)

    def _forget(self) -> None:
        """In a forked child: the processes are the parent's; close this copy of its sockets and start anew."""
        if self._control is not None:
            self._control.close()
            self._forge.returncode = 0  # not this process's child: Popen must not wait for it
        self._reset()

    def __enter__(self) -> JudgePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_pools: weakref.WeakSet[JudgePool] = weakref.WeakSet()


def _forget_pools() -> None:
    for pool in list(_pools):
        pool._forget()


os.register_at_fork(after_in_child=_forget_pools)
