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
from functools import partial
from typing import Any

from .outcome import GradeOutcome
from .verl_hook import compute_score

KEY = "relift.reward.correct_from"
THOUGHT = "prompt_opens_thought"  # the argument that a function gets if it names it

_UNVERIFIABLE = {GradeOutcome.GROUND_TRUTH_UNPARSABLE.value, GradeOutcome.TIMED_OUT.value}


class UndefinedAccuracy(ValueError):
    """Rewards do not tell right answers from wrong ones."""


class RewardFunctionFailed(RuntimeError):
    """The reward function raised or returned no reward; the message says what, where, and for which answer."""

    SHOWN = 80  # characters of the answer, or of what was returned

    @classmethod
    def of(cls, error: BaseException, function: Callable[..., Any], answer: "Answer") -> "RewardFunctionFailed":
        """Return the failure of `function` with `error`, whose traceback it takes."""
        frames = traceback.extract_tb(error.__traceback__)
        file = _file_of(function)
        at = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
        failure = cls(
            f"the reward function raised {type(error).__name__}: {error} ({at.filename}, line {at.lineno}) "
            f"{_for_answer(answer)}"
        )
        return failure.with_traceback(error.__traceback__)


class NoReward(RewardFunctionFailed):
    """The reward function returned what is no reward, which it would do again; a call that raised may succeed later."""

    @classmethod
    def returned(cls, what: str, function: Callable[..., Any], answer: "Answer") -> "NoReward":
        """Return the failure of `function` that has returned `what`, which is no reward."""
        return cls(
            f"the reward function returned {what} ({named(function)}) {_for_answer(answer)}; return a finite number, "
            "or a dict with score, a finite number, and acc, which is 1 for a right answer and 0 for a wrong one"
        )


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
        info: the columns that verl carries: `score` and `acc`, as floats, and what else the reward function returned.
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


def named(function: Callable[..., Any]) -> str:
    """Return the name of a function, or of an object's class, and its file."""
    inner = _unwrapped(function)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    file = _file_of(function)
    return f"{name} of {file}" if file else name


def number(value: Any) -> float | None:
    """Return a number of any library as a float; None for what is none, such as text that looks like one.

    Args:
        value: a Python number, or NumPy's or torch's: a scalar or an array of one element.
    """
    try:
        value = value.item() if callable(getattr(value, "item", None)) else value
        # Text has no such method; `float` would read it all the same.
        return float(value) if hasattr(type(value), "__float__") or hasattr(type(value), "__index__") else None
    except (ArithmeticError, RuntimeError, TypeError, ValueError):  # too large, or more than one number
        return None


def shown(value: Any) -> str:
    """Return a value and its type, in a line of limited length."""
    text = " ".join(repr(value).split())
    limit = RewardFunctionFailed.SHOWN
    return f"{text if len(text) <= limit else text[:limit] + '...'} ({type(value).__name__})"


def accuracy_of(reward: float, info: Mapping[str, Any], correct_from: float | None) -> float:
    """Return how right an answer is: `acc` where the reward function returned it, else what the reward says.

    Args:
        reward: of the answer.
        info: what the reward function returned, as a dict. verl's reward managers put a bare number under `acc` alone.
        correct_from: rewards of at least this are right; None if all are 0 or 1.

    Raises:
        UndefinedAccuracy: the reward is neither 0 nor 1 and `correct_from` is None, or `acc` is no number in [0, 1].
    """
    if "acc" in info and "score" in info:
        accuracy = number(info["acc"])
        if accuracy is None or not 0.0 <= accuracy <= 1.0:
            what = shown(info["acc"]) if accuracy is None else f"{accuracy:g}"
            raise UndefinedAccuracy(
                f"the reward function returned acc={what}, which must be 1 for a right answer and 0 for a wrong "
                f"one; correct it, or return no acc and set {KEY}"
            )
        return accuracy
    returned = info.get("score", info.get("acc", reward))
    score = number(returned)
    if score is None:
        raise UndefinedAccuracy(f"the reward function returned {shown(returned)}, which is no number; return a number")
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

    @property
    def file(self) -> str | None:
        """The file of the function; None if it is written in C."""
        return _file_of(self._function)

    async def score(self, answer: Answer) -> Score:
        """Score one answer. A function that is no coroutine function runs in a thread.

        Raises:
            RewardFunctionFailed: the function raised, tried to end the program, or returned neither a finite number nor
                a dict with one under `score`.
            UndefinedAccuracy: see `accuracy_of`.
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
                result = (await asyncio.to_thread(_outcome_of, self._function, arguments))()
                if inspect.isawaitable(result):
                    result = await result
        except (Exception, SystemExit) as error:
            raise RewardFunctionFailed.of(error, self._function, answer) from None
        return self._score_of(result, answer)

    def score_all(self, answers: Sequence[Answer]) -> list[Score]:
        """Score answers together and wait for them, in a thread that runs no event loop."""

        async def gather() -> list[Score]:
            return await asyncio.gather(*(self.score(answer) for answer in answers))

        return asyncio.run(gather())

    def _score_of(self, result: Any, answer: Answer) -> Score:
        info = dict(result) if isinstance(result, Mapping) else {"score": result}
        if "score" not in info:
            there = f"it has {', '.join(map(str, info))}" if info else "it is empty"
            raise NoReward.returned(f"a dict without score: {there}", self._function, answer)
        reward = number(info["score"])
        if reward is None or not math.isfinite(reward):
            what = shown(result) if result is info["score"] else f"score={shown(info['score'])}"
            kind = "no number" if reward is None else "not finite"
            raise NoReward.returned(f"{what}, which is {kind}", self._function, answer)
        try:
            accuracy = accuracy_of(reward, info, self._correct_from)
        except UndefinedAccuracy as error:
            raise UndefinedAccuracy(f"{error} ({named(self._function)}, {_for_answer(answer)})") from None
        return Score(reward, accuracy, {**info, "score": reward, "acc": accuracy})


def _outcome_of(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Callable[[], Any]:
    """Call a function, and return what returns its result or raises its error.

    asyncio cannot carry a StopIteration out of a thread: whoever waits for it would wait forever.
    """
    try:
        result = function(**arguments)
    except (Exception, SystemExit) as error:
        return partial(_raise, error)
    return lambda: result


def _raise(error: BaseException) -> None:
    raise error


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that partials and decorators call."""
    while isinstance(function, partial):
        function = function.func
    return inspect.unwrap(function)


def _file_of(function: Callable[..., Any]) -> str | None:
    """Return the file of a function, or of an object's class; None if it is written in C."""
    inner = _unwrapped(function)
    with contextlib.suppress(TypeError):
        return inspect.getsourcefile(inner if inspect.isroutine(inner) else type(inner))
    return None


def _for_answer(answer: Answer) -> str:
    limit = RewardFunctionFailed.SHOWN
    text = answer.text if len(answer.text) <= limit else answer.text[:limit] + "..."
    return f"for the answer {text!r} to the ground truth {answer.ground_truth!r}"
