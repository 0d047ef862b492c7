r"""MATH (Hendrycks et al., arXiv 2103.03874): competition problems with solutions, levels 1 to 5; files train and test.

Each record has `problem`, `level` ("Level 3"), `type` (the subject) and `solution`, whose last \boxed{} is the ground
truth. The input is the original folders (`train/algebra/1.json`), or parquet or jsonl files with the same columns.

    python -m data_preprocess.math --input DIR --output DIR [--difficulty 3 4 5]
"""

import re
import sys
from typing import Any

from verl_relift.data.errors import DataError, Reason
from verl_relift.data.fields import optional_text, scalar, text
from verl_relift.data.schema import Row

from .answers import demonstration, last_boxed
from .cli import DataSet, Flags, main
from .pipeline import MapRow
from .template import Template, chat

LEVELS = ("1", "2", "3", "4", "5")


def level_of(value: str) -> str | None:
    """Return the level as a digit; None for the few problems of "Level ?"."""
    found = re.fullmatch(r"(?:Level\s*)?([1-5])", value.strip())
    return found and found.group(1)


def mapping(flags: Flags) -> MapRow:
    """Return the function from record to row."""
    template: Template = flags.template

    def to_row(record: dict[str, Any], index: int, split: str) -> Row:
        problem, solution = text(record, "problem"), text(record, "solution")
        answer = last_boxed(solution)
        if not answer:
            raise DataError(
                Reason.NO_GROUND_TRUTH, "the solution boxes no answer", column="solution", remedy="drop the row"
            )
        return Row(
            data_source="math",
            prompt=chat(problem, template),
            target=demonstration(solution, answer, think=template == Template.THINK),
            ground_truth=answer,
            index=index,
            split=split,
            level=level_of(scalar(record, "level")),
            id=optional_text(record, "unique_id"),
        )

    return to_row


MATH = DataSet(
    "math", __doc__, ("train", "test"), mapping, ("problem", "solution", "level", "unique_id"), levels=LEVELS
)

if __name__ == "__main__":
    sys.exit(main(MATH))
