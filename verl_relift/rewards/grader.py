"""Graders: extract the answer, decide exactly where possible, and ask the judge otherwise.

A `Grader` holds rules, a pool of worker processes and a cache of verdicts. `grade`, `grade_many` and `grade_async`
share one grader per process and set of rules. They may be called from threads, event loops and Ray workers.
"""

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from .compare import Pair, compare
from .exact import plain_number
from .extract import extract_answer
from .ground_truth import alternatives
from .judge.worker_pool import WorkerPool
from .outcome import Grade, GradeOutcome
from .settings import GradingRules, PoolSettings

_Verdict = tuple[GradeOutcome, str]  # an outcome and its detail
_Pairs = tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class _Undecided:
    """An answer that only the judge can decide.

    Attributes:
        answer: the extracted answer.
        pairs: the answer is correct if any of these pairs is equal.
    """

    answer: str
    pairs: _Pairs

    def grade(self, verdict: _Verdict) -> Grade:
        return Grade(verdict[0], self.answer, verdict[1])


class Grader:
    """Grades responses under one set of rules.

    Args:
        rules: which part of a response is its answer, and which answers are accepted.
        pool: number and limits of the worker processes.
    """

    def __init__(self, rules: GradingRules | None = None, pool: PoolSettings | None = None) -> None:
        self.rules = rules or GradingRules()
        self.pool = WorkerPool(pool)
        self._verdicts: OrderedDict[_Pairs, _Verdict] = OrderedDict()
        self._asked: dict[_Pairs, Future[_Verdict]] = {}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def grade(self, response: str, ground_truth: Any) -> Grade:
        """Grade one response, blocking until a worker has decided or has used its time limit.

        Args:
            response: the whole text that the model generated.
            ground_truth: a string, a number, or a list of alternatives.

        Raises:
            TypeError: the ground truth is of another type.
            RuntimeError: the judge is needed and cannot be started.
        """
        grade, undecided = self.grade_exactly(response, ground_truth)
        return grade if undecided is None else undecided.grade(self._ask(undecided.pairs).result())

    async def grade_async(self, response: str, ground_truth: Any) -> Grade:
        """Grade one response as `grade` does, without blocking the event loop: a thread waits for the judge."""
        grade, undecided = self.grade_exactly(response, ground_truth)
        if undecided is None:
            return grade
        # Other responses with the same answer wait for this verdict, so a canceled caller must not cancel it.
        return undecided.grade(await asyncio.shield(asyncio.wrap_future(self._ask(undecided.pairs))))

    def grade_many(self, pairs: Iterable[tuple[str, Any]], progress: bool = False) -> list[Grade]:
        """Grade (response, ground truth) pairs on all worker processes.

        Args:
            pairs: what `grade` takes, one pair per response.
            progress: whether to show a progress bar on stderr.

        Returns:
            One grade per pair, in the order of the pairs.
        """
        pairs = list(pairs)
        grades: list[Grade | None] = []
        waiting: dict[_Pairs, list[tuple[int, _Undecided]]] = {}
        verdicts: dict[_Pairs, Future[_Verdict]] = {}
        bar = _progress_bar(len(pairs), progress)
        for index, (response, ground_truth) in enumerate(pairs):
            grade, undecided = self.grade_exactly(response, ground_truth)
            grades.append(grade)
            if undecided is None:
                bar.update(1)
                continue
            if undecided.pairs not in verdicts:
                verdicts[undecided.pairs] = self._ask(undecided.pairs)
            waiting.setdefault(undecided.pairs, []).append((index, undecided))
        for key, members in waiting.items():
            verdict = verdicts[key].result()
            for index, undecided in members:
                grades[index] = undecided.grade(verdict)
            bar.update(len(members))
        bar.close()
        return grades

    def grade_exactly(self, response: str, ground_truth: Any) -> tuple[Grade | None, _Undecided | None]:
        """Grade in microseconds, without the judge.

        Returns:
            The grade and None; or None and the comparison that the judge must make.
        """
        truths = alternatives(ground_truth)
        if not truths:
            return Grade(GradeOutcome.GROUND_TRUTH_UNPARSABLE, detail="the ground truth is empty"), None
        extraction = extract_answer(response, self.rules)
        if extraction.failure is not None:
            return Grade(extraction.failure), None
        answer = extraction.answer
        pairs: list[Pair] = []
        for truth in truths:
            verdict = compare(
                answer,
                truth,
                allow_unevaluated=self.rules.allow_unevaluated,
                max_answer_chars=self.rules.max_answer_chars,
            )
            if verdict is True:
                return Grade(GradeOutcome.CORRECT, answer), None
            pairs.extend(verdict or ())
        if not pairs:
            return Grade(GradeOutcome.WRONG, answer), None
        undecided = _Undecided(answer, tuple(pairs))
        with self._lock:
            known = self._verdicts.get(undecided.pairs)
        return (undecided.grade(known), None) if known else (None, undecided)

    def _ask(self, pairs: _Pairs) -> Future[_Verdict]:
        """Have the pairs judged. Callers that ask for the same pairs meanwhile share one comparison."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.pool.settings.workers, thread_name_prefix="judge")
            if pairs not in self._asked:
                self._asked[pairs] = self._threads.submit(self._judge, pairs)
            return self._asked[pairs]

    def _judge(self, pairs: _Pairs) -> _Verdict:
        verdict = None
        try:
            verdict = self.pool.judge(pairs)
            return verdict
        finally:
            with self._lock:
                self._asked.pop(pairs, None)
                # A judge may time out because the machine is busy, so that verdict is not kept.
                if verdict is not None and verdict[0] is not GradeOutcome.TIMED_OUT:
                    self._verdicts[pairs] = verdict
                    if len(self._verdicts) > self.pool.settings.cached_verdicts:
                        self._verdicts.popitem(last=False)

    def close(self) -> None:
        """End the worker processes and threads; the grader starts them again if it is used again."""
        with self._lock:
            threads, self._threads = self._threads, None
        self.pool.close()
        if threads is not None:
            threads.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_graders: dict[GradingRules, Grader] = {}
_graders_lock = threading.Lock()


def shared_grader(rules: GradingRules | None = None) -> Grader:
    """Return this process's grader for these rules, creating it if necessary."""
    rules = rules or GradingRules()
    with _graders_lock:
        if rules not in _graders:
            _graders[rules] = Grader(rules)
        return _graders[rules]


def grade(response: str, ground_truth: Any, *, rules: GradingRules | None = None) -> Grade:
    """Grade whether a response's final answer equals the ground truth.

    The call blocks until a worker has decided or has used `PoolSettings.time_limit_s`.

    Args:
        response: the whole text that the model generated.
        ground_truth: a string, a number, or a list of alternatives.
        rules: the defaults of `GradingRules` if None.

    Raises:
        TypeError: the ground truth is of another type.
        RuntimeError: the judge is needed and cannot be started.
    """
    return shared_grader(rules).grade(response, ground_truth)


async def grade_async(response: str, ground_truth: Any, *, rules: GradingRules | None = None) -> Grade:
    """Grade one response as `grade` does, without blocking the event loop."""
    return await shared_grader(rules).grade_async(response, ground_truth)


def grade_many(
    pairs: Iterable[tuple[str, Any]], *, rules: GradingRules | None = None, progress: bool = False
) -> list[Grade]:
    """Grade (response, ground truth) pairs on all worker processes.

    Args:
        pairs: what `grade` takes, one pair per response.
        rules: the defaults of `GradingRules` if None.
        progress: whether to show a progress bar on stderr.

    Returns:
        One grade per pair, in the order of the pairs.
    """
    return shared_grader(rules).grade_many(pairs, progress)


def unparsable_ground_truths(ground_truths: Sequence[Any]) -> list[int]:
    """Find the ground truths that cannot be read as mathematics; data checks report them.

    Such a question can still be graded: an answer with the same text is correct, and any other answer counts as
    `ground_truth_unparsable`.

    Returns:
        Indices into `ground_truths`, ascending.
    """
    pool = shared_grader().pool
    return [index for index, ground_truth in enumerate(ground_truths) if not _is_readable(ground_truth, pool)]


def unanswerable_ground_truths(ground_truths: Sequence[Any]) -> list[int]:
    """Find the ground truths that no answer can match, not even their own text in a box; data checks report them.

    Examples are an empty text, and one with unbalanced braces, which no box can hold.

    Returns:
        Indices into `ground_truths`, ascending.
    """
    grader = shared_grader()
    return [index for index, ground_truth in enumerate(ground_truths) if not _is_answerable(ground_truth, grader)]


def _is_answerable(ground_truth: Any, grader: Grader) -> bool:
    exact = (grader.grade_exactly(f"\\boxed{{{truth}}}", truth)[0] for truth in alternatives(ground_truth))
    return any(grade is not None and grade.correct for grade in exact)


def _is_readable(ground_truth: Any, pool: WorkerPool) -> bool:
    truths = alternatives(ground_truth)
    if any(plain_number(truth) is not None for truth in truths):
        return True
    # An empty answer is never compared, so the judge only parses the ground truth.
    return bool(truths) and pool.judge(tuple(("", truth) for truth in truths))[0] is GradeOutcome.WRONG


def _forget_graders() -> None:
    """Drop the graders in a forked child, which has neither the threads nor the processes; a lock may be held."""
    global _graders_lock
    _graders_lock = threading.Lock()
    _graders.clear()


os.register_at_fork(after_in_child=_forget_graders)


class _NoBar:
    def update(self, _: int) -> None: ...

    def close(self) -> None: ...


def _progress_bar(total: int, shown: bool) -> Any:
    if not shown:
        return _NoBar()
    from tqdm import tqdm

    return tqdm(total=total, unit="response", desc="grading")
