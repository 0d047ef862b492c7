"""Your own data: jsonl, json, csv, tsv or parquet with columns named by flags; files train and test.

Text may be compressed (.gz, .zst, .bz2), and a folder of `datasets.Dataset.save_to_disk` is read too. A column may lie
inside another one: `--answer-column reward_model.ground_truth`. The question is text or a chat list that ends with the
user. If --question-column and --target-column name the same chat, its last message is the demonstration. An answer that
is a list has alternatives, of which any one is right.

    python -m data_preprocess.jsonl --input my.jsonl --output DIR --question-column prompt --answer-column final
    --target-column solution
"""

import argparse
import json
import sys
from typing import Any

from verl_relift.data.errors import DataError, Reason
from verl_relift.data.fields import chat, question_chat, scalar, target_text
from verl_relift.data.schema import Row

from .answers import demonstration, final_answer
from .cli import DataSet, Flags, main
from .pipeline import MapRow
from .template import Template, dress

_LONGEST_ANSWER = 300  # characters; a longer text is a solution


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
            # Some row has it, which `DataSet.required_columns` and `optional_columns` made sure of.
            raise DataError(
                Reason.MISSING_COLUMN,
                f"this row has no {column}, though other rows do (it has: {there})",
                column=column,
                remedy="fill it in, or leave such rows out with --on-error skip",
            )
        value = value[name]
    return value


def mapping(flags: Flags) -> MapRow:
    """Return the function from record to row."""
    if flags.question_column == flags.answer_column:
        problem = f"--question-column and --answer-column both name {flags.answer_column}"
        raise DataError(Reason.MISSING_COLUMN, problem, remedy="name the column with the ground truth")
    template: Template | None = flags.template

    def label(record: dict[str, Any], flag: str) -> str | None:
        column = getattr(flags, flag)
        value = None if column is None else pick(record, column)
        return None if value is None else scalar({column: value}, column)

    def to_row(record: dict[str, Any], index: int, split: str) -> Row:
        question = _question(pick(record, flags.question_column), flags)
        ground_truth = _ground_truth(pick(record, flags.answer_column), flags)
        target = None if flags.target_column is None else target_text(_target(record, flags))
        if target is not None and template == Template.THINK and "</think>" not in target:
            target = demonstration(target, final_answer(ground_truth), think=True)
        return Row(
            data_source=flags.data_source,
            prompt=dress(question, template),
            target=target,
            ground_truth=ground_truth,
            index=index,
            split=split,
            level=label(record, "level_column"),
            id=label(record, "id_column"),
            ability=flags.ability,
        )

    return to_row


def _question(value: Any, flags: Flags) -> list[tuple[str, str]]:
    """Return the messages before the demonstration, which may be the last message of the same column."""
    messages = chat(value, flags.question_column)
    if flags.question_column == flags.target_column and messages[-1][0] == "assistant":
        messages = messages[:-1]
        value = [{"role": role, "content": content} for role, content in messages]
    return question_chat(value, flags.question_column)


def _target(record: dict[str, Any], flags: Flags) -> Any:
    """Return the demonstration; of a chat with its question, the last message."""
    value = pick(record, flags.target_column, required=False)
    if value is None or flags.question_column != flags.target_column:
        return value
    role, content = chat(value, flags.target_column)[-1]
    return [{"role": role, "content": content}]


def _ground_truth(answer: Any, flags: Flags) -> str:
    column = flags.answer_column
    if answer is None or (isinstance(answer, list) and not answer):
        problem = "null" if answer is None else "an empty list"
        raise DataError(Reason.NO_GROUND_TRUTH, problem, column=column, remedy="drop the row or fill it in")
    if isinstance(answer, list):
        answers = [scalar({column: one}, column).strip() for one in answer]
        return answers[0] if len(answers) == 1 else json.dumps(answers, ensure_ascii=False)
    truth = scalar({column: answer}, column).strip()
    if flags.template is not None and final_answer(truth) == truth and ("\n" in truth or len(truth) > _LONGEST_ANSWER):
        raise DataError(
            Reason.WRONG_TYPE,
            f"a text of {len(truth)} characters without a final answer in \\boxed{{}} or after ####",
            column=column,
            remedy="name the column with the final answer",
        )
    return truth


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the columns."""
    add = parser.add_argument
    add("--question-column", default="question", help="the question: text or a chat list; default question")
    add(
        "--answer-column",
        default="answer",
        help="the ground truth: text, a number, a list of alternatives; default answer",
    )
    add("--target-column", help="the demonstration: text, a chat list or null; without the flag there is none")
    add("--id-column", help=argparse.SUPPRESS)
    add("--level-column", help="difficulty or category (--difficulty LEVEL ...: keep these)")
    add("--difficulty", nargs="+", default=(), metavar="LEVEL", help=argparse.SUPPRESS)
    add("--data-source", default="jsonl", help="the name under which metrics appear")
    add("--ability", default="math", help=argparse.SUPPRESS)
    add("--split", choices=("train", "test"), help="the split of all input; by default, the file's name says it")


JSONL = DataSet(
    "jsonl",
    __doc__,
    ("train", "test"),
    mapping,
    None,
    template=None,
    add_flags=add_flags,
    required_columns=("question_column", "answer_column"),
    optional_columns=("target_column", "level_column", "id_column"),
)

if __name__ == "__main__":
    sys.exit(main(JSONL))
