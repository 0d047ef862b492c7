"""Grading: extract, decide exactly where possible, ask the judge otherwise.

`Grader` holds rules, a judge pool and a cache of verdicts. `grade`, `grade_many` and `grade_async` use one grader per
process and set of rules; they serve threads, event loops and Ray workers alike.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .compare import Pair, compare
from .exact import plain_number
from .extract import extract_answer
from .ground_truth import alternatives
from .judge.worker_pool import JudgePool
from .outcome import Grade, GradeOutcome
from .settings import GradingRules, PoolSettings

_Verdict = tuple[GradeOutcome, str]  # an outcome and its detail
_Pairs = tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """What only the judge can answer: an extracted answer, and the pairs of which one must be equal."""

    answer: str
    pairs: _Pairs

    def grade(self, verdict: _Verdict) -> Grade:
        return Grade(verdict[0], self.answer, verdict[1])


class Grader:
    """Grades responses under one set of rules."""

    def __init__(self, rules: GradingRules | None = None, pool: PoolSettings | None = None) -> None:
        self.rules = rules or GradingRules()
        self.pool = JudgePool(pool)
        self._verdicts: OrderedDict[_Pairs, _Verdict] = OrderedDict()
        self._asked: dict[_Pairs, Future[_Verdict]] = {}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def grade(self, response: str, ground_truth: Any) -> Grade:
        """Grade one response; blocks for at most the pool's time limit once a judge process is free.

        ground_truth: a string, a number, or a list of alternatives; raises TypeError for anything else.
        """
        grade, question = self.grade_exactly(response, ground_truth)
        return grade if question is None else question.grade(self._ask(question.pairs).result())

    async def grade_async(self, response: str, ground_truth: Any) -> Grade:
        """As `grade`, without blocking the event loop: what needs the judge waits in a thread."""
        grade, question = self.grade_exactly(response, ground_truth)
        if question is None:
            return grade
        # Shielded: other responses with the same answer wait for the same verdict.
        return question.grade(await asyncio.shield(asyncio.wrap_future(self._ask(question.pairs))))

    def grade_many(self, pairs: Iterable[tuple[str, Any]], progress: bool = False) -> list[Grade]:
        """Grade (response, ground truth) pairs in order, on all judge processes. `progress` shows a bar on stderr."""
        pairs = list(pairs)
        grades: list[Grade | None] = []
        waiting: dict[_Pairs, list[tuple[int, _Question]]] = {}
        verdicts: dict[_Pairs, Future[_Verdict]] = {}
        bar = _progress_bar(len(pairs), progress)
        for index, (response, ground_truth) in enumerate(pairs):
            grade, question = self.grade_exactly(response, ground_truth)
            grades.append(grade)
            if question is None:
                bar.update(1)
                continue
            if question.pairs not in verdicts:
                verdicts[question.pairs] = self._ask(question.pairs)
            waiting.setdefault(question.pairs, []).append((index, question))
        for key, members in waiting.items():
            verdict = verdicts[key].result()
            for index, question in members:
                grades[index] = question.grade(verdict)
            bar.update(len(members))
        bar.close()
        return grades

    def grade_exactly(self, response: str, ground_truth: Any) -> tuple[Grade | None, _Question | None]:
        """Grade without a judge process, in microseconds: the grade, or else the question for the judge."""
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
        question = _Question(answer, tuple(pairs))
        with self._lock:
            known = self._verdicts.get(question.pairs)
        return (question.grade(known), None) if known else (None, question)

    def _ask(self, pairs: _Pairs) -> Future[_Verdict]:
        """Have the pairs judged; one judge serves all who ask while it is at work."""
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
                # A loaded machine may be why a judge timed out: that is no verdict to keep.
                if verdict is not None and verdict[0] is not GradeOutcome.TIMED_OUT:
                    self._verdicts[pairs] = verdict
                    if len(self._verdicts) > self.pool.settings.cached_verdicts:
                        self._verdicts.popitem(last=False)

    def close(self) -> None:
        """End the judge's processes and threads. The grader starts them again if it is used again."""
        with self._lock:
            threads, self._threads = self._threads, None
        self.pool.close()
        if threads is not None:
            threads.shutdown()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_graders: dict[GradingRules, Grader] = {}
_graders_lock = threading.Lock()


def shared_grader(rules: GradingRules | None = None) -> Grader:
    """This process's grader for these rules."""
    rules = rules or GradingRules()
    with _graders_lock:
        if rules not in _graders:
            _graders[rules] = Grader(rules)
        return _graders[rules]


def grade(response: str, ground_truth: Any, *, rules: GradingRules | None = None) -> Grade:
    """Whether a response's final answer equals the ground truth. Blocks for at most the judge's time limit.

    ground_truth: a string, a number, or a list of alternatives; raises TypeError for anything else.
    """
    return shared_grader(rules).grade(response, ground_truth)


async def grade_async(response: str, ground_truth: Any, *, rules: GradingRules | None = None) -> Grade:
    """As `grade`, for event loops."""
    return await shared_grader(rules).grade_async(response, ground_truth)


def grade_many(
    pairs: Iterable[tuple[str, Any]], *, rules: GradingRules | None = None, progress: bool = False
) -> list[Grade]:
    """Grade (response, ground truth) pairs in order, on all judge processes. `progress` shows a bar on stderr."""
    return shared_grader(rules).grade_many(pairs, progress)


def unparsable_ground_truths(ground_truths: Sequence[Any]) -> list[int]:
    """Indices of the ground truths that cannot be read as mathematics, for checks of data.

    Such a question still grades: an answer of the same text is right, any other counts as `ground_truth_unparsable`.
    """
    pool = shared_grader().pool
    return [index for index, ground_truth in enumerate(ground_truths) if not _is_readable(ground_truth, pool)]


def _is_readable(ground_truth: Any, pool: JudgePool) -> bool:
    truths = alternatives(ground_truth)
    if any(plain_number(truth) is not None for truth in truths):
        return True
    # An empty answer is never compared, so the judge parses the ground truth and no more.
    return bool(truths) and pool.judge(tuple(("", truth) for truth in truths))[0] is GradeOutcome.WRONG


def _forget_graders() -> None:
    """A forked child has neither the threads nor the processes, and a lock may have been held."""
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
