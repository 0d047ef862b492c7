"""Grades an evaluation's responses with a reward function of the user's, by the rules of training."""

import asyncio
import contextlib
import hashlib
import importlib
import importlib.util
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..rewards import own
from ..rewards.function import KEY, Answer, RewardFunction, RewardFunctionFailed, Score
from .engine import Completion
from .errors import EvaluationError
from .questions import EvaluationQuestion
from .store import Graded, Store

_DEFAULT_NAME = "compute_score"  # as verl's configuration has it
_PACKAGE = "pkg://"
_KEYS = own.Keys("--reward-function", "--reward-function ", "--reward-function FILE:", "--reward-kwargs")
_RIGHT, _WRONG = "correct", "wrong"


@dataclass(frozen=True, slots=True)
class OwnReward:
    """A reward function and what identifies it.

    Attributes:
        function: the function.
        settings: its file, the file's sha256, its name, keyword arguments and threshold, as plain JSON types.
    """

    function: RewardFunction
    settings: Mapping[str, Any]

    @classmethod
    def load(cls, named: str, kwargs: Mapping[str, Any], correct_from: float | None) -> "OwnReward":
        """Import a function and check that it can be called.

        Args:
            named: `FILE` or `FILE:NAME`; `pkg://MODULE` stands for a file that can be imported.
            kwargs: keyword arguments of every call, or of the class.
            correct_from: rewards of at least this are right; None if rewards are 0 or 1, or come with `acc`.

        Raises:
            EvaluationError: it cannot be loaded, made or called.
        """
        path, _, name = named.rpartition(":")
        if not path or not name.isidentifier():
            path, name = named, _DEFAULT_NAME
        try:
            module = _module(path)
            function, source = own.of_module(module, name), Path(module.__file__).read_bytes()
        except (Exception, SystemExit) as error:  # whatever the module raises
            raise EvaluationError(own.loading_problem(_KEYS, path, name, error)) from error
        for problem in own.call_problems(_KEYS, path, name, function, kwargs):
            raise EvaluationError(problem)
        settings = {
            "reward_function": f"{path if path.startswith(_PACKAGE) else Path(path).name}:{name}",
            "sha256": hashlib.sha256(source).hexdigest(),
            "reward_kwargs": dict(kwargs),
            "correct_from": correct_from,
        }
        return cls(own.make(function, correct_from, kwargs), settings)


def _module(named: str) -> ModuleType:
    """Import a module of a package, or a file that is in none, without a place in `sys.modules`, as training does."""
    if named.startswith(_PACKAGE):
        return importlib.import_module(named.removeprefix(_PACKAGE).replace("/", "."))
    path = Path(named.removeprefix("file://"))
    if not path.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(f"reward_function_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def score_and_store(
    completions: Iterable[Completion],
    questions: Sequence[EvaluationQuestion],
    reward: OwnReward,
    store: Store,
    in_thought: Collection[str] = (),
) -> int:
    """Score and store completions while the engine generates more of them.

    Args:
        completions: responses, in the order in which they finish.
        questions: the questions that they belong to.
        reward: the reward function.
        store: where graded responses go.
        in_thought: keys of questions whose prompt opens the thought in which the response begins.

    Returns:
        The number of response tokens.

    Raises:
        EvaluationError: the function raised an exception, or returned what is no reward.
    """
    by_key = {question.key: question for question in questions}
    tokens = 0
    waiting: dict[Future[Score], Completion] = {}

    def take(done: Iterable[Future[Score]]) -> None:
        for future in done:
            completion = waiting.pop(future)
            store.append(_graded(completion, by_key[completion.key], _score(future, completion)))

    with _event_loop() as loop:
        for completion in completions:
            tokens += completion.tokens
            question = by_key[completion.key]
            answer = Answer(
                completion.text,
                question.ground_truth,
                question.source,
                question.extra_info,
                completion.key in in_thought,
            )
            waiting[asyncio.run_coroutine_threadsafe(reward.function.score(answer), loop)] = completion
            take([future for future in waiting if future.done()])
        take(list(waiting))
    return tokens


@contextlib.contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread: coroutine functions are awaited together, others run in its threads."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="rewards", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_others() -> None:
    """End the calls that nobody waits for any more, because another one has failed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _score(future: Future[Score], completion: Completion) -> Score:
    """Return the result of a call.

    Raises:
        EvaluationError: it failed.
    """
    try:
        return future.result()
    except Exception as error:  # a function of the user's may raise anything
        kind = "" if isinstance(error, RewardFunctionFailed) else f"{type(error).__name__}: "
        why = f"{kind}{' '.join(str(error).split())}".replace(KEY, "--correct-from")
        raise EvaluationError(
            f"--reward-function: it failed on sample {completion.sample} of question {completion.key} ({why}); correct "
            "it, and evaluate into another --output"
        ) from error


def _graded(completion: Completion, question: EvaluationQuestion, score: Score) -> Graded:
    outcome, answer = score.info.get("outcome"), score.info.get("pred")
    if score.right:
        outcome = _RIGHT
    elif not isinstance(outcome, str) or outcome == _RIGHT:
        outcome = _WRONG
    return Graded(
        completion.key,
        completion.sample,
        question.source,
        question.messages[-1]["content"],
        outcome,
        answer if isinstance(answer, str) else None,
        question.ground_truth,
        completion.tokens,
        completion.truncated,
        completion.text,
        score.reward,
    )
