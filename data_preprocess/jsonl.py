"""Your own data: jsonl, json, csv or parquet with columns named by flags; files train and test.

A column may lie inside another one: `--answer-column reward_model.ground_truth`. The question is text or a chat list.

    python -m data_preprocess.jsonl --input my.jsonl --output DIR --question-column prompt --answer-column final
    --target-column solution
"""

import argparse
import sys
from typing import Any

from verl_relift.data.errors import DataError, Reason
from verl_relift.data.fields import chat as messages_of
from verl_relift.data.fields import scalar, target_text
from verl_relift.data.schema import Row

from .answers import demonstration
from .cli import DataSet, Flags, main
from .pipeline import MapRow
from .template import Template, dress


def pick(record: dict[str, Any], column: str, required: bool = True) -> Any:
    """Return the value of a column.

    Args:
        record: the columns.
        column: the name of a column, or a path with dots.
        required: whether a missing column is a fault.

    Raises:
        DataError: a required column is missing.
    """
    if column in record:
        return record[column]
    value: Any = record
    for name in column.split("."):
        if not isinstance(value, dict) or name not in value:
            if not required:
                return None
            there = ", ".join(record) or "none"
            raise DataError(
                Reason.MISSING_COLUMN,
                f"no such column (there are: {there})",
                column=column,
                remedy="name it with --*-column",
            )
        value = value[name]
    return value


def mapping(flags: Flags) -> MapRow:
    """Return the function from record to row."""
    template: Template | None = flags.template

    def label(record: dict[str, Any], column: str | None) -> str | None:
        value = None if column is None else pick(record, column)
        return None if value is None else scalar({column: value}, column)

    def to_row(record: dict[str, Any], index: int, split: str) -> Row:
        question = messages_of(pick(record, flags.question_column), flags.question_column)
        answer = pick(record, flags.answer_column)
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if answer is None:
            raise DataError(
                Reason.NO_GROUND_TRUTH, "null", column=flags.answer_column, remedy="drop the row or fill it in"
            )
        ground_truth = (
            answer if isinstance(answer, str) else scalar({flags.answer_column: answer}, flags.answer_column)
        ).strip()
        target = None if flags.target_column is None else target_text(pick(record, flags.target_column, required=False))
        if target is not None and template == Template.THINK and "</think>" not in target:
            target = demonstration(target, ground_truth, think=True)
        return Row(
            data_source=flags.data_source,
            prompt=dress(question, template),
            target=target,
            ground_truth=ground_truth,
            index=index,
            split=split,
            level=label(record, flags.level_column),
            id=label(record, flags.id_column),
            ability=flags.ability,
        )

    return to_row


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the columns."""
    add = parser.add_argument
    add("--question-column", default="question", help="text or a chat list")
    add("--answer-column", default="answer", help="the ground truth: text, a number or a list of one")
    add("--target-column", help="the demonstration: text, a chat list or null; without the flag there is none")
    add("--id-column", help="identifiers, which must be unique")
    add("--level-column", help="difficulty or category")
    add("--difficulty", nargs="+", default=(), metavar="LEVEL", help="keep these levels of --level-column")
    add("--data-source", default="jsonl", help="the name under which metrics appear")
    add("--ability", default="math")
    add("--split", choices=("train", "test"), help="the split of all input; by default, the file's name says it")


JSONL = DataSet("jsonl", __doc__, ("train", "test"), mapping, None, template=None, add_flags=add_flags)

if __name__ == "__main__":
    sys.exit(main(JSONL))
