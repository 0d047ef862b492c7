"""OpenR1-Math: olympiad-style problems with DeepSeek-R1's solutions, the training set of ReLIFT; file train.

The columns of a record tell which of two layouts it has:

- Elliott/Openr1-Math-46k-8192, which ReLIFT and LUFFY use: `data_source, prompt, target, ability, reward_model,
  extra_info`. Messages are kept unless --template is given.
- open-r1/OpenR1-Math-220k, raw: `problem, answer, generations, correctness_math_verify, is_reasoning_complete, source,
  uuid`. The demonstration is a generation that is complete and that math-verify found correct; --generation chooses
  among several. Problems with a blank answer are proofs and are left out. The level is the problem's `source`.

    python -m data_preprocess.openr1_math --input DIR --output DIR [--template think] [--verify]
"""

import argparse
import sys
from enum import StrEnum
from typing import Any

from verl_relift.data.errors import DataError, Reason
from verl_relift.data.fields import chat as messages_of
from verl_relift.data.fields import optional_text, target_text, text
from verl_relift.data.schema import Row

from .cli import DataSet, Flags, main
from .pipeline import MapRow
from .template import Template, chat, dress

COLUMNS = (
    *("data_source", "prompt", "target", "ability", "reward_model", "extra_info"),
    *("problem", "answer", "generations", "correctness_math_verify", "is_reasoning_complete", "source", "uuid"),
)


class Generation(StrEnum):
    """Which of several correct generations becomes the demonstration."""

    FIRST = "first"
    SHORTEST = "shortest"


def correct_generations(record: dict[str, Any]) -> list[str]:
    """Return the generations of a raw record that are complete and that math-verify found correct.

    Raises:
        DataError: `generations` is not a list of text, or the lists differ in length.
    """
    generations = record.get("generations")
    if not isinstance(generations, list) or not all(isinstance(one, str) for one in generations):
        remedy = "check that this is the right file"
        raise DataError(Reason.WRONG_TYPE, "not a list of text", column="generations", remedy=remedy)
    marks = []
    for column in ("correctness_math_verify", "is_reasoning_complete"):
        values = record.get(column)
        if values is None:
            values = [False] * len(generations)
        if not isinstance(values, list) or len(values) != len(generations):
            problem = f"not a list of {len(generations)} marks, one for each generation"
            raise DataError(Reason.WRONG_TYPE, problem, column=column, remedy="drop the row")
        marks.append(values)
    return [
        one for one, correct, complete in zip(generations, *marks, strict=True) if correct and complete and one.strip()
    ]


def mapping(flags: Flags) -> MapRow:
    """Return the function from record to row, for both layouts."""
    template: Template | None = flags.template

    def to_row(record: dict[str, Any], index: int, split: str) -> Row:
        if record.get("prompt") is not None or "reward_model" in record:
            return _from_ready(record, index, split, template)
        return _from_raw(record, index, split, template or Template.THINK, flags)

    return to_row


def _from_ready(record: dict[str, Any], index: int, split: str, template: Template | None) -> Row:
    extra = record.get("extra_info") or {}
    return Row(
        data_source=text(record, "data_source"),
        prompt=dress(messages_of(record.get("prompt"), "prompt"), template),
        target=target_text(record.get("target")),
        ground_truth=_ground_truth(record.get("reward_model")),
        index=index,
        split=split,
        level=extra.get("level") if isinstance(extra.get("level"), str) else None,
        ability=optional_text(record, "ability") or "math",
    )


def _ground_truth(reward_model: Any) -> str:
    """Return the text in `reward_model.ground_truth`, which some files wrap in a list of one."""
    value = reward_model.get("ground_truth") if isinstance(reward_model, dict) else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        problem = "null" if value is None else f"a {type(value).__name__}, not text"
        raise DataError(Reason.NO_GROUND_TRUTH, problem, column="reward_model.ground_truth", remedy="drop the row")
    return value


def _from_raw(record: dict[str, Any], index: int, split: str, template: Template, flags: Flags) -> Row:
    problem = text(record, "problem")
    answer = optional_text(record, "answer")
    if answer is None or not answer.strip():
        raise DataError(Reason.NOT_VERIFIABLE, "no answer: a proof", column="answer")
    generations = correct_generations(record)
    if not generations and not flags.keep_unsolved:
        raise DataError(Reason.NO_TARGET, "no generation is complete and correct", column="generations")
    choose = min if flags.generation == Generation.SHORTEST else lambda options, key: options[0]
    return Row(
        data_source="openr1_math",
        prompt=chat(problem, template),
        target=choose(generations, key=len) if generations else None,
        ground_truth=answer.strip(),
        index=index,
        split=split,
        level=optional_text(record, "source"),
        id=optional_text(record, "uuid"),
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the raw layout."""
    choices = list(Generation)
    parser.add_argument(
        "--generation",
        type=Generation,
        choices=choices,
        default=Generation.FIRST,
        help="the one to use of several",
    )
    parser.add_argument(
        "--keep-unsolved", action="store_true", help="keep problems without a correct generation, with no target"
    )


OPENR1_MATH = DataSet("openr1_math", __doc__, ("train",), mapping, COLUMNS, template=None, add_flags=add_flags)

if __name__ == "__main__":
    sys.exit(main(OPENR1_MATH))
