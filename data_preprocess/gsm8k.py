"""GSM8K (openai/gsm8k): grade-school word problems with worked solutions; files train and test.

Each record has `question` and `answer`. The answer is a solution that ends in `#### 72` and may contain calculator
annotations, `<<48/2=24>>`. The annotations are removed. The number, without thousands separators, is the ground truth.

    python -m data_preprocess.gsm8k --input DIR --output DIR
"""

import re
import sys
from typing import Any

from verl_relift.data.errors import DataError, Reason
from verl_relift.data.fields import text
from verl_relift.data.schema import Row

from .answers import demonstration
from .cli import DataSet, Flags, main
from .pipeline import MapRow
from .template import Template, chat

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"-?(\d+(\.\d+)?|\.\d+)")


def split_answer(answer: str) -> tuple[str, str]:
    """Split an answer into the solution without calculator annotations and the final number without separators.

    Raises:
        DataError: there is no number after `####`.
    """
    solution, mark, number = answer.rpartition("####")
    number = number.strip().replace(",", "").removeprefix("$")
    if not mark or not _NUMBER.fullmatch(number):
        raise DataError(
            Reason.NO_GROUND_TRUTH,
            f"no number after ####: {answer[-40:]!r}",
            column="answer",
            remedy="drop the row or correct it",
        )
    return _ANNOTATION.sub("", solution).strip(), number


def mapping(flags: Flags) -> MapRow:
    """Return the function from record to row."""
    template: Template = flags.template

    def to_row(record: dict[str, Any], index: int, split: str) -> Row:
        question = text(record, "question")
        solution, number = split_answer(text(record, "answer"))
        target = demonstration(solution, number, think=template == Template.THINK)
        return Row("gsm8k", chat(question, template), target, number, index, split)

    return to_row


GSM8K = DataSet("gsm8k", __doc__, ("train", "test"), mapping, ("question", "answer"), hub_config="main")

if __name__ == "__main__":
    sys.exit(main(GSM8K))
