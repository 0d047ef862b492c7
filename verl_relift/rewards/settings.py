"""Settings of grading, each checked when it is created.

`GradingRules` says which answers count, `RewardValues` what each outcome earns, and `PoolSettings` what the judge's
processes may use.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum

from .outcome import GradeOutcome

MIB = 1024 * 1024


class Convention(StrEnum):
    """The ways in which a response can mark its final answer."""

    BOXED = "boxed"  # the last \boxed{...} (or \fbox{...})
    HASHES = "hashes"  # a line `#### 42`, the ending of GSM8K's solutions
    PHRASE = "phrase"  # `Answer: B` or `the answer is B`, which multiple-choice prompts ask for


class Thinking(StrEnum):
    """Whether a response must contain a closed thought before its answer."""

    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class GradingRules:
    """Which part of a response is its answer, and which answers are accepted.

    Attributes:
        thinking: with `required`, a response without exactly one closed thought is `bad_format`.
        conventions: tried in this order; the first one that the answer section uses decides.
        allow_unevaluated: whether `7*2+3-4` is an answer where the ground truth is the number 13. If so, a model earns
            the reward by repeating the question.
        max_answer_chars: a longer answer is wrong without being parsed.

    Raises:
        ValueError: a value is unknown, `conventions` is empty, or `max_answer_chars` is not positive.
    """

    thinking: Thinking = Thinking.OPTIONAL
    conventions: tuple[Convention, ...] = (Convention.BOXED, Convention.HASHES)
    allow_unevaluated: bool = False
    max_answer_chars: int = 2_000

    def __post_init__(self) -> None:
        if self.thinking not in list(Thinking):
            raise ValueError(f"thinking={self.thinking!r} must be one of {', '.join(Thinking)}")
        names = self.conventions
        listed = isinstance(names, Sequence) and not isinstance(names, str)  # a configuration's list is no Python list
        if not listed or not names or any(name not in list(Convention) for name in names):
            raise ValueError(f"conventions={names!r} must be a list of at least one of {', '.join(Convention)}")
        if not isinstance(self.allow_unevaluated, bool):
            raise ValueError(f"allow_unevaluated={self.allow_unevaluated!r} must be true or false")
        if type(self.max_answer_chars) is not int or self.max_answer_chars < 1:
            raise ValueError(f"max_answer_chars={self.max_answer_chars!r} must be a whole number of at least 1")
        object.__setattr__(self, "thinking", Thinking(self.thinking))
        object.__setattr__(self, "conventions", tuple(map(Convention, names)))


@dataclass(frozen=True, slots=True)
class RewardValues:
    """The reward of each outcome: the only place where an outcome becomes a number.

    Raises:
        ValueError: a reward is not a finite number below that of `correct`.
    """

    correct: float = 1.0
    wrong: float = 0.0
    no_answer: float = 0.0
    bad_format: float = 0.0
    timed_out: float = 0.0
    ground_truth_unparsable: float = 0.0

    def __post_init__(self) -> None:
        for name, value in ((f.name, getattr(self, f.name)) for f in fields(self)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"rewards.{name}={value!r} must be a finite number")
        for name in (f.name for f in fields(self)):
            if name != "correct" and not getattr(self, name) < self.correct:
                raise ValueError(f"rewards.{name}={getattr(self, name)} must be below rewards.correct={self.correct}")

    def of(self, outcome: GradeOutcome) -> float:
        """Return the reward of an outcome."""
        return float(getattr(self, outcome.value))


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What the judge's worker processes may use.

    Attributes:
        workers: number of worker processes. One decides hundreds of easy answers a second, and most answers need none.
        time_limit_s: processor seconds of a worker for one comparison; the worker is killed afterwards.
        memory_limit_mib: address space of one worker, MiB.
        start_limit_s: seconds in which the fork server must have loaded sympy, which is slow on a busy machine.
        cached_verdicts: number of (answer, ground truth) verdicts that a grader remembers.

    Raises:
        ValueError: a value is not positive.
    """

    workers: int = field(default_factory=lambda: min(4, len(os.sched_getaffinity(0))))
    time_limit_s: float = 5.0
    memory_limit_mib: int = 1024
    start_limit_s: float = 180.0
    cached_verdicts: int = 16_384

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            if not getattr(self, name) > 0:
                raise ValueError(f"PoolSettings.{name} must be positive, not {getattr(self, name)}")
