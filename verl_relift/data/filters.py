"""Filters of rows, for `--dedup`, `--decontaminate`, `--tokenizer`, `--verify` and `--difficulty`.

A filter is called with rows in order. For each row it returns None (the row stays), the `DataError` that says why the
row is left out, or the `TargetRemoved` that says why it stays without its demonstration. Filters remember what they
have seen, so one instance serves one output file.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum

from .errors import DataError, Reason, TargetRemoved
from .overlap import NGramIndex
from .schema import Row
from .tokens import TokenCounter

Verdicts = list[DataError | None]
Filter = Callable[[Sequence[Row]], Verdicts]


class Verify(StrEnum):
    """What is left out if a demonstration's answer is not the ground truth."""

    ROW = "row"  # the whole row
    TARGET = "target"  # only the demonstration; the row stays


def unique_ids() -> Filter:
    """Leave out rows whose identifier an earlier row has; rows without an identifier stay."""
    seen: set[str] = set()

    def verdict(row: Row) -> DataError | None:
        if row.id is None:
            return None
        if row.id in seen:
            return DataError(
                Reason.DUPLICATE_ID, f"identifier {row.id!r} is used twice", column="id", remedy="make it unique"
            )
        seen.add(row.id)
        return None

    return lambda rows: [verdict(row) for row in rows]


def unique_questions() -> Filter:
    """Keep the first of the rows whose questions differ only in case and white space."""
    seen: set[bytes] = set()

    def verdict(row: Row) -> DataError | None:
        key = question_key(row.question)
        if key in seen:
            return DataError(Reason.DUPLICATE_QUESTION, "an earlier row has the same question", column="prompt")
        seen.add(key)
        return None

    return lambda rows: [verdict(row) for row in rows]


def question_key(question: str) -> bytes:
    """Return 16 bytes that are equal for questions that differ only in case and white space."""
    return hashlib.blake2b(" ".join(question.casefold().split()).encode(), digest_size=16).digest()


def of_difficulty(levels: Collection[str]) -> Filter:
    """Keep rows whose level is one of `levels`."""
    wanted = frozenset(levels)
    return lambda rows: [
        None if row.level in wanted else DataError(Reason.OTHER_DIFFICULTY, f"level {row.level!r}") for row in rows
    ]


def not_in(index: NGramIndex) -> Filter:
    """Leave out questions that share a word n-gram with an evaluation question."""

    def verdict(row: Row) -> DataError | None:
        source = index.overlap(row.question)
        return source and DataError(
            Reason.CONTAMINATED, f"shares {index.n} words in a row with {source}", column="prompt"
        )

    return lambda rows: [verdict(row) for row in rows]


def within_tokens(counter: TokenCounter, max_prompt: int | None, max_target: int | None) -> Filter:
    """Leave out rows with more tokens than the limits; nothing is truncated.

    Args:
        counter: its counts are stored in `Row.tokens`.
        max_prompt: tokens of a prompt; None for no limit.
        max_target: tokens of a demonstration; None for no limit.
    """

    def verdicts(rows: Sequence[Row]) -> Verdicts:
        prompts = counter.prompts([row.prompt for row in rows])
        targets = counter.targets([row.target for row in rows])
        for row, prompt, target in zip(rows, prompts, targets, strict=True):
            row.tokens = (prompt, target)
        return [
            _length_verdict(prompt, target, max_prompt, max_target)
            for prompt, target in zip(prompts, targets, strict=True)
        ]

    return verdicts


def _length_verdict(prompt: int, target: int, max_prompt: int | None, max_target: int | None) -> DataError | None:
    if max_prompt is not None and prompt > max_prompt:
        return DataError(Reason.PROMPT_TOO_LONG, f"{prompt} tokens, more than {max_prompt}", column="prompt")
    if max_target is not None and target > max_target:
        return DataError(Reason.TARGET_TOO_LONG, f"{target} tokens, more than {max_target}", column="target")
    return None


def verified(what: Verify) -> Filter:
    """Grade each demonstration against its ground truth, in parallel worker processes.

    Args:
        what: what is left out if the demonstration is not correct.
    """
    from ..rewards import grade_many

    def verdicts(rows: Sequence[Row]) -> Verdicts:
        answered = [i for i, row in enumerate(rows) if row.target is not None]
        grades = grade_many([(rows[i].target, rows[i].ground_truth) for i in answered])
        result: Verdicts = [None] * len(rows)
        for i, grade in zip(answered, grades, strict=True):
            if grade.outcome == "correct":
                continue
            problem = f"the demonstration is graded {grade.outcome} against ground truth {rows[i].ground_truth!r}"
            if what == Verify.TARGET:
                removed = rows[i].target or ""
                result[i] = TargetRemoved(Reason.DEMONSTRATION_FAILED, problem, column="target", excerpt=removed)
                rows[i].target = None
            else:
                result[i] = DataError(Reason.DEMONSTRATION_FAILED, problem, column="target")
        return result

    return verdicts
