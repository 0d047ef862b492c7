"""Faults of the data: `Reason` (why a row is left out) and `DataError` (one fault and its place)."""

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """Why a row is not in the output.

    The reasons of the first block are faults of the input; the others are filters that the user asked for.
    """

    MALFORMED_JSON = "malformed_json"  # the line is not JSON
    INVALID_UTF8 = "invalid_utf8"  # the bytes are not UTF-8
    UNREADABLE = "unreadable"  # the file cannot be read as what its name says
    WRONG_TYPE = "wrong_type"  # a value does not have the type that the schema requires
    MISSING_COLUMN = "missing_column"  # a required column is absent
    EMPTY_PROMPT = "empty_prompt"  # the question is null or blank
    ANSWER_IN_PROMPT = "answer_in_prompt"  # the chat that the model is to answer ends with an answer
    NO_GROUND_TRUTH = "no_ground_truth"  # no final answer to grade against
    FIELD_TOO_LARGE = "field_too_large"  # one field is longer than --max-field-bytes
    DUPLICATE_ID = "duplicate_id"  # two rows have the same identifier

    NOT_VERIFIABLE = "not_verifiable"  # the data set marks the question as having no checkable answer, e.g. a proof
    NO_TARGET = "no_target"  # the data set has no usable demonstration for this question
    DUPLICATE_QUESTION = "duplicate_question"  # --dedup: an earlier row has the same question
    CONTAMINATED = "contaminated"  # --decontaminate: shares word n-grams with an evaluation set
    PROMPT_TOO_LONG = "prompt_too_long"  # more tokens than --max-prompt-tokens
    TARGET_TOO_LONG = "target_too_long"  # more tokens than --max-target-tokens
    DEMONSTRATION_FAILED = "demonstration_failed"  # --verify: its answer is not the ground truth
    OTHER_DIFFICULTY = "other_difficulty"  # --difficulty does not list the row's level
    NOT_SAMPLED = "not_sampled"  # left out by --limit

    @property
    def is_fault(self) -> bool:
        """Whether the input is at fault. `--on-error` applies to faults only, not to rows that a filter removes."""
        return self in _FAULTS


_FAULTS = frozenset(
    {
        Reason.MALFORMED_JSON,
        Reason.INVALID_UTF8,
        Reason.UNREADABLE,
        Reason.WRONG_TYPE,
        Reason.MISSING_COLUMN,
        Reason.EMPTY_PROMPT,
        Reason.ANSWER_IN_PROMPT,
        Reason.NO_GROUND_TRUTH,
        Reason.FIELD_TOO_LARGE,
        Reason.DUPLICATE_ID,
    }
)


class DataError(ValueError):
    """One fault of the data.

    Args:
        reason: the kind of fault.
        problem: what is wrong, in words.
        file: the file, if the fault is in one.
        row: line of a text file (from 1) or row of a parquet file (from 0).
        column: the column or field.
        remedy: how to fix it.
        excerpt: what the input has there, if it is not a row that can be read.
    """

    def __init__(
        self,
        reason: Reason,
        problem: str,
        *,
        file: str | None = None,
        row: int | None = None,
        column: str | None = None,
        remedy: str | None = None,
        excerpt: str = "",
    ):
        self.reason, self.problem, self.remedy, self.excerpt = reason, problem, remedy, excerpt
        self.file, self.row, self.column = file, row, column
        super().__init__(str(self))

    def __str__(self) -> str:
        place = [self.file or ""]
        if self.row is not None:
            place.append(f"row {self.row}")
        if self.column:
            place.append(f"column {self.column}")
        where = ", ".join(part for part in place if part)
        text = f"{where}: {self.problem}" if where else self.problem
        return f"{text}; {self.remedy}" if self.remedy else text

    def at(self, file: str, row: int) -> Self:
        """Fill in the place of the fault and return it, for code that maps a row without knowing where it is from."""
        self.file, self.row = self.file or file, row if self.row is None else self.row
        self.args = (str(self),)
        return self


class TargetRemoved(DataError):
    """Why a row that stays has lost its demonstration, which is the excerpt."""
