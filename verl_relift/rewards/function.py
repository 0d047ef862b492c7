"""The configured reward function, called in one way for rollouts, for demonstrations and for a teacher's answers.

It may be a function or a coroutine function, or an object with such a `__call__`, and return a number or a dict with
`score`. What counts as right is a rule of its own, `accuracy_of`.
"""

import asyncio
import contextlib
import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .outcome import GradeOutcome
from .verl_hook import compute_score

KEY = "relift.reward.correct_from"
THOUGHT = "prompt_opens_thought"  # the argument that a function gets if it names it

_UNVERIFIABLE = {GradeOutcome.GROUND_TRUTH_UNPARSABLE.value, GradeOutcome.TIMED_OUT.value}


class UndefinedAccuracy(ValueError):
    """Rewards do not tell right answers from wrong ones."""


class RewardFunctionFailed(RuntimeError):
    """The reward function raised; the message says what, where in its file, and for which answer."""

    SHOWN = 80  # characters of the answer

    @classmethod
    def of(cls, error: Exception, function: Callable[..., Any], answer: "Answer") -> "RewardFunctionFailed":
        """Return the failure of `function` with `error`, whose traceback it takes."""
        frames = traceback.extract_tb(error.__traceback__)
        file = None
        with contextlib.suppress(TypeError):  # a function that is written in C, or a partial
            file = inspect.getsourcefile(function if inspect.isroutine(function) else type(function))
        at = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
        text = answer.text if len(answer.text) <= cls.SHOWN else answer.text[: cls.SHOWN] + "..."
        failure = cls(
            f"the reward function raised {type(error).__name__}: {error} ({at.filename}, line {at.lineno}) for the "
            f"answer {text!r} to the ground truth {answer.ground_truth!r}"
        )
        return failure.with_traceback(error.__traceback__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reward function is told.

    Attributes:
        text: the answer, without special tokens.
        ground_truth: of the question; the reward function says what it may be.
        data_source: of the question's row.
        extra_info: of the question's row.
        in_thought: whether the prompt has opened the thought in which the answer begins.
    """

    text: str
    ground_truth: Any
    data_source: str = ""
    extra_info: Mapping[str, Any] | None = None
    in_thought: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer has earned.

    Attributes:
        reward: what the policy update sees.
        accuracy: 1 if the answer is right, 0 if it is wrong; between them if the reward function says so.
        info: the columns that verl carries: `score`, `acc`, and what else the reward function returned.
    """

    reward: float
    accuracy: float
    info: dict[str, Any]

    @property
    def right(self) -> bool:
        """Whether the answer is entirely right."""
        return self.accuracy >= 1.0

    @property
    def unverifiable(self) -> bool:
        """Whether the ground truth could not be read, or grading took too long."""
        return self.info.get("outcome") in _UNVERIFIABLE


def accuracy_of(reward: float, info: Mapping[str, Any], correct_from: float | None) -> float:
    """Return how right an answer is: `acc` where the reward function returned it, else what the reward says.

    Args:
        reward: of the answer.
        info: what the reward function returned, as a dict. verl's reward managers put a bare number under `acc` alone.
        correct_from: rewards of at least this are right; None if all are 0 or 1.

    Raises:
        UndefinedAccuracy: the reward is neither 0 nor 1 and `correct_from` is None, or `acc` is not in [0, 1].
    """
    if "acc" in info and "score" in info:
        accuracy = float(info["acc"])
        if not 0.0 <= accuracy <= 1.0:
            raise UndefinedAccuracy(
                f"the reward function returned acc={accuracy:g}, which must be 1 for a right answer and 0 for a wrong "
                f"one; correct it, or return no acc and set {KEY}"
            )
        return accuracy
    score = float(info.get("score", info.get("acc", reward)))
    if correct_from is not None:
        return float(score >= correct_from)
    if score not in (0.0, 1.0):
        raise UndefinedAccuracy(
            f"the reward function returned {score:g}, which is neither 0 nor 1, and no acc: set {KEY} to the least "
            "reward of a right answer, or return a dict with score and acc"
        )
    return score


class RewardFunction:
    """Scores answers with one function and one rule for what is right."""

    def __init__(self, function: Callable[..., Any] = compute_score, correct_from: float | None = None, **kwargs: Any):
        """
        Args:
            function: takes verl's keyword arguments `data_source`, `solution_str`, `ground_truth` and `extra_info`, and
                `prompt_opens_thought` if it names it.
            correct_from: for `accuracy_of`.
            **kwargs: further keyword arguments of every call; `reward.custom_reward_function.reward_kwargs`.
        """
        self._function = function
        self._correct_from = correct_from
        self._kwargs = kwargs
        call = function if inspect.isroutine(function) else type(function).__call__
        self._is_coroutine = inspect.iscoroutinefunction(call)
        self._wants_thought = THOUGHT in inspect.signature(function).parameters

    async def score(self, answer: Answer) -> Score:
        """Score one answer. A function that is no coroutine function runs in a thread.

        Raises:
            RewardFunctionFailed: the function raised.
            UndefinedAccuracy: see `accuracy_of`.
            TypeError, ValueError: what the function returned is not a finite number, or a dict with one under `score`.
        """
        arguments = {
            "data_source": answer.data_source,
            "solution_str": answer.text,
            "ground_truth": answer.ground_truth,
            "extra_info": {} if answer.extra_info is None else answer.extra_info,
        }
        if self._wants_thought:
            arguments[THOUGHT] = answer.in_thought
        arguments |= self._kwargs
        try:
            if self._is_coroutine:
                result = await self._function(**arguments)
            else:
                result = await asyncio.to_thread(self._function, **arguments)
                if inspect.isawaitable(result):
                    result = await result
        except Exception as error:
            raise RewardFunctionFailed.of(error, self._function, answer) from None
        return self._score_of(result)

    def score_all(self, answers: Sequence[Answer]) -> list[Score]:
        """Score answers together and wait for them, in a thread that runs no event loop."""

        async def gather() -> list[Score]:
            return await asyncio.gather(*(self.score(answer) for answer in answers))

        return asyncio.run(gather())

    def _score_of(self, result: Any) -> Score:
        info = dict(result) if isinstance(result, Mapping) else {"score": float(result)}
        if "score" not in info:
            raise ValueError(f"the reward function returned a dict without score: it has {', '.join(map(str, info))}")
        reward = float(info["score"])
        if not math.isfinite(reward):
            raise ValueError(f"the reward function returned {reward}, which is not finite")
        accuracy = accuracy_of(reward, info, self._correct_from)
        return Score(reward, accuracy, {**info, "acc": info.get("acc", accuracy)})
