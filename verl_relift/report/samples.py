"""Pairs answers to the same questions before and after training, from two validations or two evaluations."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ReportError

_MOST_CHARS = 2_000
# The number of pairs of each kind that the page shows, in this order.
_SHOWN = {"now correct": 4, "no longer correct": 2, "still wrong": 2, "still correct": 1}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response.

    Attributes:
        text: the response, cut to a length that suits a page.
        left_out: number of characters that were cut.
        verdict: outcome of grading, in words.
        right: whether the answer is correct.
    """

    text: str
    left_out: int
    verdict: str
    right: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with its ground truth and its answers before and after; `change` is a key of `_SHOWN`."""

    question: str
    ground_truth: str
    before: Answer
    after: Answer
    change: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of two sets of answers.

    Attributes:
        before: name of the first set.
        after: name of the second set.
        counts: number of questions by kind of change.
        pairs: the pairs to show.
    """

    before: str
    after: str
    counts: dict[str, int]
    pairs: list[Pair]


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    question: str
    ground_truth: str
    answer: Answer


def from_validation(run: Path) -> Comparison | None:
    """Compare a run's first and last validation.

    Args:
        run: the run's folder.

    Returns:
        The comparison; None if there are fewer than two validations or they have no question in common.

    Raises:
        ReportError: a line is not a row of verl's validation.
    """
    files = sorted(
        (file for file in (run / "validation").glob("*.jsonl") if file.stem.isdigit()), key=lambda file: int(file.stem)
    )
    if len(files) < 2:
        return None
    first, last = files[0], files[-1]
    return _compare(_validation_rows(first), _validation_rows(last), f"step {first.stem}", f"step {last.stem}")


def from_evaluations(before: Path, after: Path, labels: tuple[str, str]) -> Comparison | None:
    """Compare two evaluations.

    Args:
        before: folder of the first evaluation.
        after: folder of the second evaluation.
        labels: their names on the page.

    Returns:
        The comparison; None if they have no question in common.

    Raises:
        ReportError: a folder has no generations, or a line is not readable.
    """
    return _compare(_evaluation_rows(before), _evaluation_rows(after), *labels)


def _compare(first: Iterable[_Row], last: Iterable[_Row], before: str, after: str) -> Comparison | None:
    earlier = {row.key: row for row in first}
    counts: dict[str, int] = dict.fromkeys(_SHOWN, 0)
    rng = random.Random(0)
    shown: dict[str, list[Pair]] = defaultdict(list)
    for row in last:
        old = earlier.get(row.key)
        if old is None:
            continue
        change = _change(old.answer.right, row.answer.right)
        counts[change] += 1
        # Reservoir sampling: files are sorted by source, so the first rows would all come from the first source.
        place = counts[change] - 1 if counts[change] <= _SHOWN[change] else rng.randrange(counts[change])
        if place < _SHOWN[change]:
            pair = Pair(row.question, row.ground_truth, old.answer, row.answer, change)
            shown[change][place : place + 1] = [pair]
    if not any(counts.values()):
        return None
    return Comparison(before, after, counts, [pair for change in _SHOWN for pair in shown[change]])


def _change(was: bool, now: bool) -> str:
    if was:
        return "still correct" if now else "no longer correct"
    return "now correct" if now else "still wrong"


def _validation_rows(file: Path) -> Iterator[_Row]:
    seen: dict[str, int] = defaultdict(int)
    for row in _json_lines(file):
        try:
            question, score = row["input"], float(row["score"])
            right = float(row.get("acc", score)) > 0.5
            verdict = row.get("outcome") or f"score {score:g}"
            answer = _answer(row["output"], str(verdict), right)
        except (KeyError, TypeError, ValueError) as error:
            raise ReportError(f"{file}: not written by verl's validation ({error!r})") from error
        seen[question] += 1
        yield _Row(f"{seen[question]}/{question}", question, str(row.get("gts", "")), answer)


def _evaluation_rows(folder: Path) -> Iterator[_Row]:
    file = folder / "generations.jsonl"
    for row in _json_lines(file):
        try:
            answer = _answer(row["response"], str(row["outcome"]), row["outcome"] == "correct")
            yield _Row(f"{row['key']}/{row['sample']}", row["question"], str(row["ground_truth"]), answer)
        except (KeyError, TypeError) as error:
            raise ReportError(f"{file}: not written by verl_relift.evaluate ({error!r})") from error


def _answer(text: str, verdict: str, right: bool) -> Answer:
    return Answer(text[:_MOST_CHARS], max(0, len(text) - _MOST_CHARS), verdict.replace("_", " "), right)


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        raise ReportError(f"{file}: no such file")
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ReportError(f"{file}, line {number}: not JSON ({error})") from error
