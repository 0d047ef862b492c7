"""Lets training loops take turns on one machine and measures their turns.

A loop runs in its own process and waits at the start of a step until it gets a turn of several steps. Only one loop
works at a time, so that a change in the machine's speed affects all of them. The referee measures a turn from handing
it out until the loop waits again, which includes generation, grading, updates, weight sync and metrics.
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

from benchmarks.report import Spread

ADDRESS = "LOOP_TURNS"  # environment variable with the socket of the referee
READY_LIMIT_S = 600.0  # from starting a loop to its first step
TURN_LIMIT_S = 1800.0
LAST_LINES = 30  # number of lines of a failed loop's log to show


@dataclass
class Work:
    """What a loop has trained on.

    Attributes:
        response_lengths: response tokens of every rollout.
        prompt_tokens: prompt tokens of all rollouts.
        reward: sum of all rewards.
    """

    response_lengths: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    reward: float = 0.0

    def add(self, other: "Work") -> None:
        """Add other work to this."""
        self.response_lengths += other.response_lengths
        self.prompt_tokens += other.prompt_tokens
        self.reward += other.reward

    @property
    def response_tokens(self) -> int:
        """Response tokens of all rollouts."""
        return sum(self.response_lengths)


@dataclass(frozen=True)
class Turn:
    """One turn.

    Attributes:
        steps: number of steps.
        seconds: wall-clock seconds.
        work: what the loop trained on.
        cpu_seconds: processor seconds of all processes of the loop.
        idle_cpu_share: processor seconds of the waiting loops / `seconds`.
    """

    steps: int
    seconds: float
    work: Work
    cpu_seconds: float = 0.0
    idle_cpu_share: float = 0.0

    @property
    def seconds_per_step(self) -> float:
        """Wall-clock seconds per step."""
        return self.seconds / self.steps

    @property
    def response_rate(self) -> float:
        """Trained response tokens per second."""
        return self.work.response_tokens / self.seconds

    @property
    def token_rate(self) -> float:
        """Trained prompt and response tokens per second; a prompt counts once per rollout."""
        return (self.work.response_tokens + self.work.prompt_tokens) / self.seconds


def speed_ratio(ours: Sequence[Turn], theirs: Sequence[Turn]) -> Spread:
    """Return the ratio of trained response tokens per second, round by round."""
    return Spread.of([mine.response_rate / other.response_rate for mine, other in zip(ours, theirs, strict=True)])


def fastest(sides: Mapping[str, Sequence[Turn]]) -> str:
    """Return the name of the side with the largest median of trained response tokens per second."""
    return max(sides, key=lambda name: statistics.median(turn.response_rate for turn in sides[name]))


def quantile(values: Sequence[int], fraction: float) -> int:
    """Return the smallest value that at least this fraction of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


# ---- in the loop's process -------------------------------------------------------------------------------------------


class Player:
    """A loop's connection to its referee. Call `begin_step` at the start and `trained` once in every step."""

    def __init__(self, referee: Connection):
        self._referee = referee
        self._left = 0  # remaining steps of this turn
        self._work = Work()  # work of this turn

    @classmethod
    def of_environment(cls) -> "Player":
        """Connect to the referee that started this process or an ancestor of it."""
        return cls(Client(os.environ[ADDRESS], family="AF_UNIX"))

    def begin_step(self) -> bool:
        """Wait for a turn unless one is running, and return whether there is one; if not, the loop must end."""
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
    """A loop exited or did not answer in time; the message has the end of its log."""


class Side:
    """The referee's side of a loop. A context manager; leaving it ends the loop's process.

    Args:
        name: name of the loop.
        command: command that starts it.
        environment: its environment.
        log: file for its output.
        address: path of the socket to create.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, address: Path):
        self.name = name
        self._log = log
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen()
        with open(log, "wb") as output:
            # In its own session, so that Ctrl-C reaches only the referee, which then ends the loops.
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
        """Wait until the loop is about to make its first step.

        Raises:
            LoopFailed: the loop exited or took too long.
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
        """Let the loop make some steps.

        Args:
            steps: number of steps.
            idle: the loops that wait meanwhile.

        Raises:
            LoopFailed: the loop exited or took too long.
        """
        own, others = self.cpu_seconds(), sum(side.cpu_seconds() for side in idle)
        start = time.monotonic()
        self._player.send(steps)
        work = self._finished(TURN_LIMIT_S)
        seconds = time.monotonic() - start
        own, others = self.cpu_seconds() - own, sum(side.cpu_seconds() for side in idle) - others
        return Turn(steps, seconds, work, own, others / seconds)

    def cpu_seconds(self) -> float:
        """Return the processor seconds of the loop's living processes."""
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
    """Give every side one turn per round, starting each round with another side.

    Args:
        sides: the loops.
        steps: steps per turn.
        warm_up: number of rounds that do not count.
        rounds: number of rounds that count.

    Returns:
        The turns of the counted rounds by the side's name.
    """
    turns: dict[str, list[Turn]] = {side.name: [] for side in sides}
    for number in range(warm_up + rounds):
        for i in range(len(sides)):
            side = sides[(number + i) % len(sides)]
            turn = side.take_turn(steps, [other for other in sides if other is not side])
            if number >= warm_up:
                turns[side.name].append(turn)
    return turns
