"""Several training loops taking turns on one machine, and what their turns say.

A loop runs in a process of its own and waits at the start of a step until it gets a turn; a turn is a number of steps.
Only one loop works at a time, so that a change of the machine's speed meets all of them. The referee's clock measures a
turn from handing it out until the loop waits again: generation, grading, updates, weight sync, metrics, everything.
"""

import math
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection
from pathlib import Path

import psutil

ADDRESS = "LOOP_TURNS"  # environment variable: the socket at which a loop's referee listens
READY_LIMIT_S = 600.0  # from starting a loop to its first step
TURN_LIMIT_S = 900.0
LAST_LINES = 30  # of a failed loop's log that are shown


@dataclass
class Work:
    """What was trained on: every rollout's response tokens, all prompts' tokens, the sum of rewards."""

    response_lengths: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    reward: float = 0.0

    def add(self, other: "Work") -> None:
        self.response_lengths += other.response_lengths
        self.prompt_tokens += other.prompt_tokens
        self.reward += other.reward

    @property
    def response_tokens(self) -> int:
        return sum(self.response_lengths)


@dataclass(frozen=True)
class Turn:
    """A turn of ``steps`` steps: its wall-clock seconds and its work.

    ``cpu_seconds``: processor seconds of the loop, over all its processes. ``idle_cpu_share``: those that the loops
    without the turn used meanwhile, over the turn's seconds.
    """

    steps: int
    seconds: float
    work: Work
    cpu_seconds: float = 0.0
    idle_cpu_share: float = 0.0

    @property
    def seconds_per_step(self) -> float:
        return self.seconds / self.steps

    @property
    def response_rate(self) -> float:
        """Response tokens trained on, per second."""
        return self.work.response_tokens / self.seconds

    @property
    def token_rate(self) -> float:
        """Prompt and response tokens trained on, per second; a prompt counts once for each of its rollouts."""
        return (self.work.response_tokens + self.work.prompt_tokens) / self.seconds


@dataclass(frozen=True)
class Spread:
    """Median and range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, decimals: int) -> str:
        return f"{self.median:,.{decimals}f} ({self.low:,.{decimals}f} to {self.high:,.{decimals}f})"


def speed_ratio(ours: Sequence[Turn], theirs: Sequence[Turn]) -> Spread:
    """How many times as many response tokens a second, round by round."""
    return Spread.of([mine.response_rate / other.response_rate for mine, other in zip(ours, theirs, strict=True)])


def fastest(sides: Mapping[str, Sequence[Turn]]) -> str:
    """The side with the largest median of response tokens a second."""
    return max(sides, key=lambda name: statistics.median(turn.response_rate for turn in sides[name]))


def quantile(values: Sequence[int], fraction: float) -> int:
    """The smallest value that at least this fraction of ``values`` does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


# ---- in the loop's process -------------------------------------------------------------------------------------------


class Player:
    """A loop's end. Call :meth:`begin_step` where a step begins and :meth:`trained` once in every step."""

    def __init__(self, referee: Connection):
        self._referee = referee
        self._left = 0  # steps of this turn
        self._work = Work()  # of this turn

    @classmethod
    def of_environment(cls) -> "Player":
        """Connected to the referee that started this process or an ancestor of it."""
        return cls(Client(os.environ[ADDRESS], family="AF_UNIX"))

    def begin_step(self) -> bool:
        """Wait for a turn, unless one is running; False: no further step, the loop has to end."""
        if self._left == 0:
            self._referee.send(self._work)
            self._work = Work()
            try:
                self._left = self._referee.recv()
            except EOFError:
                return False
        self._left -= 1
        return True

    def trained(self, work: Work) -> None:
        """Add a step's work to the turn's."""
        self._work.add(work)


# ---- in the referee's ------------------------------------------------------------------------------------------------


class LoopFailed(RuntimeError):
    """A loop ended or did not answer in time; the message holds the end of its log."""


class Side:
    """The referee's end: a loop's process, which writes to ``log``. A context manager; leaving it ends the process."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, address: Path):
        self.name = name
        self._log = log
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen()
        with open(log, "wb") as output:
            # A session of its own: Ctrl-C reaches the referee alone, which ends the loops in order.
            self._process = subprocess.Popen(
                command,
                env={**environment, ADDRESS: str(address)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._player: Connection | None = None

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        family = _family(self._process.pid)
        if self._player is not None:
            self._player.close()
        else:
            self._process.terminate()
        self._listener.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            for process in family:
                if process.is_running():
                    process.kill()
            self._process.wait()

    def wait_until_ready(self) -> None:
        """Return when the loop stands before its first step.

        Raises:
            LoopFailed: it ended, or takes too long.
        """
        self._listener.settimeout(1.0)
        deadline = time.monotonic() + READY_LIMIT_S
        while self._player is None:
            try:
                connected, _ = self._listener.accept()
                connected.setblocking(True)
                self._player = Connection(connected.detach())
            except TimeoutError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise self._failure() from None
        self._finished(deadline - time.monotonic())

    def take_turn(self, steps: int, idle: Sequence["Side"]) -> Turn:
        """Let the loop make ``steps`` steps while those of ``idle`` wait.

        Raises:
            LoopFailed: it ended, or takes too long.
        """
        own, others = self.cpu_seconds(), sum(side.cpu_seconds() for side in idle)
        start = time.monotonic()
        self._player.send(steps)
        work = self._finished(TURN_LIMIT_S)
        seconds = time.monotonic() - start
        own, others = self.cpu_seconds() - own, sum(side.cpu_seconds() for side in idle) - others
        return Turn(steps, seconds, work, own, others / seconds)

    def cpu_seconds(self) -> float:
        """Processor seconds of the loop's processes that live."""
        total = 0.0
        for process in _family(self._process.pid):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def _finished(self, limit: float) -> Work:
        if not self._player.poll(limit):
            raise self._failure()
        try:
            return self._player.recv()
        except EOFError:
            raise self._failure() from None

    def _failure(self) -> LoopFailed:
        lines = self._log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return LoopFailed("\n".join([f"{self.name} failed or did not answer in time; the end of {self._log}:", *lines]))


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def play(sides: Sequence[Side], steps: int, warm_up: int, rounds: int) -> dict[str, list[Turn]]:
    """One turn of ``steps`` steps for every side in each round; another side begins each time.

    Returns:
        The turns by side's name, without those of the first ``warm_up`` rounds.
    """
    turns: dict[str, list[Turn]] = {side.name: [] for side in sides}
    for number in range(warm_up + rounds):
        for i in range(len(sides)):
            side = sides[(number + i) % len(sides)]
            turn = side.take_turn(steps, [other for other in sides if other is not side])
            if number >= warm_up:
                turns[side.name].append(turn)
    return turns
