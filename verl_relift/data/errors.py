"""What can be wrong with a row of data, and where: `Reason` (why a row is not kept) and `DataError` (the report of one
fault).
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a row is not in the output. The first block are faults of the input, the second are filters the user asked
    for.
    """

    MALFORMED_JSON = "malformed_json"  # the line is not JSON
    INVALID_UTF8 = "invalid_utf8"  # the bytes are not UTF-8
    UNREADABLE = "unreadable"  # the file cannot be read as what its name says
    WRONG_TYPE = "wrong_type"  # a value has another type than the schema
    MISSING_COLUMN = "missing_column"  # a column that the data set must have is absent
    EMPTY_PROMPT = "empty_prompt"  # the question is null or blank
    NO_GROUND_TRUTH = "no_ground_truth"  # no final answer to grade against
    FIELD_TOO_LARGE = "field_too_large"  # one field is longer than --max-field-bytes
    DUPLICATE_ID = "duplicate_id"  # two rows carry the same identifier

    NOT_VERIFIABLE = "not_verifiable"  # the data set says that the question has no checkable answer, e.g. a proof
    NO_TARGET = "no_target"  # the data set has no usable demonstration for this question
    DUPLICATE_QUESTION = "duplicate_question"  # --dedup: the question has been seen
    CONTAMINATED = "contaminated"  # --decontaminate: shares word n-grams with an evaluation set
    PROMPT_TOO_LONG = "prompt_too_long"  # more tokens than --max-prompt-tokens
    TARGET_TOO_LONG = "target_too_long"  # more tokens than --max-target-tokens
    DEMONSTRATION_FAILED = "demonstration_failed"  # --verify: its answer is not the ground truth
    OTHER_DIFFICULTY = "other_difficulty"  # not among --difficulty
    NOT_SAMPLED = "not_sampled"  # left out by --limit

    @property
    def is_fault(self) -> bool:
        """Whether the input is at fault, rather than a filter at work: `--on-error` decides about faults."""
        return self in _FAULTS


_FAULTS = frozenset(
    {
        Reason.MALFORMED_JSON,
        Reason.INVALID_UTF8,
        Reason.UNREADABLE,
        Reason.WRONG_TYPE,
        Reason.MISSING_COLUMN,
        Reason.EMPTY_PROMPT,
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
        file: the file it is in, if it is in one.
        row: line of a text file (from 1) or row of a parquet file (from 0).
        column: the field.
        remedy: what to do about it.
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
    ):
        self.reason, self.problem, self.file, self.row, self.column, self.remedy = (
            reason,
            problem,
            file,
            row,
            column,
            remedy,
        )
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

    def at(self, file: str, row: int) -> DataError:
        """The same fault with its place filled in, for code that maps a row without knowing where the row is from."""
        self.file, self.row = self.file or file, row if self.row is None else self.row
        self.args = (str(self),)
        return self
