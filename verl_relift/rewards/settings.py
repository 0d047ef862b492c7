"""Settings of grading: which answers count (`GradingRules`), what they earn (`RewardValues`), what the judge may use
(`PoolSettings`). Each is checked when it is made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from enum import StrEnum

from .outcome import GradeOutcome

MIB = 1024 * 1024


class Convention(StrEnum):
    """A way in which a response marks its final answer."""

    BOXED = "boxed"  # the last \boxed{...} (or \fbox{...})
    HASHES = "hashes"  # a line `#### 42`, as GSM8K's solutions end
    PHRASE = "phrase"  # `Answer: B`, `the answer is B`, as multiple-choice prompts ask


class Thinking(StrEnum):
    """Whether a response must carry a closed thought before its answer."""

    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class GradingRules:
    """Which part of a response is its answer, and which answers are accepted.

    thinking: `required` makes a response without exactly one closed thought `bad_format`.
    conventions: tried in this order; the first that the answer section uses decides.
    allow_unevaluated: whether `7*2+3-4` is an answer where the ground truth is the number 13. Off by default: with it a
        model is paid for repeating the question.
    max_answer_chars: a longer answer is wrong without being parsed.
    """

    thinking: Thinking = Thinking.OPTIONAL
    conventions: tuple[Convention, ...] = (Convention.BOXED, Convention.HASHES)
    allow_unevaluated: bool = False
    max_answer_chars: int = 2_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "thinking", Thinking(self.thinking))
        object.__setattr__(self, "conventions", tuple(Convention(name) for name in self.conventions))
        if not self.conventions:
            raise ValueError("GradingRules.conventions is empty: name at least one of " + ", ".join(Convention))
        if self.max_answer_chars < 1:
            raise ValueError(f"GradingRules.max_answer_chars must be positive, not {self.max_answer_chars}")


@dataclass(frozen=True, slots=True)
class RewardValues:
    """The reward that each outcome earns: the one place where an outcome becomes a number."""

    correct: float = 1.0
    wrong: float = 0.0
    no_answer: float = 0.0
    bad_format: float = 0.0
    timed_out: float = 0.0
    ground_truth_unparsable: float = 0.0

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            if name != "correct" and not getattr(self, name) < self.correct:
                raise ValueError(f"RewardValues.{name} must be below RewardValues.correct ({self.correct})")

    def of(self, outcome: GradeOutcome) -> float:
        """The reward of an outcome."""
        return float(getattr(self, outcome.value))


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What the judge's processes may use.

    workers: judge processes. One decides hundreds of easy answers a second, and most answers never reach one.
    time_limit_s: wall-clock seconds for one comparison, after which its process is killed.
    memory_limit_mib: address space of one judge process, MiB.
    start_limit_s: seconds in which the judge must have loaded sympy; it is slow on a loaded machine.
    cached_verdicts: how many (answer, ground truth) verdicts are remembered.
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
