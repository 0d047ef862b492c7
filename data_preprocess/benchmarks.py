"""Evaluation sets: AIME 2024 and 2025, AMC 2023, MATH-500, Minerva, OlympiadBench, MMLU-Pro, GPQA, ARC-Challenge.

Each becomes one file `NAME.parquet` without `target`. With one benchmark, --input is its file, folder or hub id. With
several, --input is a folder that contains a file or folder of each name (`aime24.jsonl`, `math500/test.parquet`).
Without --input, each benchmark comes from the hub.

Questions with choices list them as A, B, C ..., and the ground truth is the letter. --choice-seed and the question
itself determine the order of GPQA's choices, so a question keeps its order whatever else is in the file.

    python -m data_preprocess.benchmarks --benchmark aime24 math500 --input DIR --output DIR
"""

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from verl_relift.data.errors import DataError, Reason
from verl_relift.data.fields import QUESTION_COLUMNS, optional_text, scalar, text
from verl_relift.data.schema import Row
from verl_relift.data.sources import SUFFIXES, Source, find
from verl_relift.usage import argument_parser

from .answers import last_boxed
from .cli import DataSet, Flags, add_common_flags, check_flags, options_of, report, run_reporting
from .pipeline import Job, MapRow, run
from .template import Template, chat

Read = Callable[[dict[str, Any], int], "Item"]  # (record, seed of the order of the choices)
SPLITS = ("test", "train", "validation")
_WRONG_FILE = "check that this is the right file"


@dataclass(frozen=True, slots=True)
class Item:
    """What a benchmark's record contains.

    Attributes:
        question: the text, with the choices if there are any.
        answer: the ground truth.
        level: level or category; None if there is none.
        id: the source's identifier; None if there is none.
    """

    question: str
    answer: str
    level: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Where an evaluation set is on the hub and how to read its records."""

    read: Read
    hub: str
    hub_split: str = "test"
    hub_config: str | None = None
    ability: str = "math"


def read_problem(record: dict[str, Any], seed: int) -> Item:
    """Read question and answer under their usual names.

    Without an answer column, the answer is the last boxed answer of the solution.
    """
    question = text(record, next((name for name in QUESTION_COLUMNS if name in record), "problem"))
    column = next((name for name in ("answer", "Answer") if record.get(name) is not None), None)
    if column is not None:
        answer = scalar(record, column).strip()
    else:
        solution = next((name for name in ("solution", "Solution") if name in record), "answer")
        answer = last_boxed(text(record, solution)) or ""
    level = next((scalar(record, name) for name in ("level", "type") if record.get(name) is not None), None)
    return Item(question, answer, level, _id(record, "unique_id", "id", "ID", "idx"))


def read_olympiad(record: dict[str, Any], seed: int) -> Item:
    """Read OlympiadBench: the context, if any, precedes the question, and several answers become one list."""
    answers = record.get("final_answer")
    if answers is None:
        raise DataError(Reason.NOT_VERIFIABLE, "no final answer: a proof", column="final_answer")
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise DataError(Reason.WRONG_TYPE, "not a list of text", column="final_answer", remedy=_WRONG_FILE)
    context = optional_text(record, "context")
    question = text(record, "question")
    answer = ", ".join(answer.strip() for answer in answers)
    return Item(
        f"{context}\n\n{question}" if context else question,
        answer,
        optional_text(record, "subfield"),
        _id(record, "id"),
    )


def read_mmlu_pro(record: dict[str, Any], seed: int) -> Item:
    """Read MMLU-Pro: `options` and the letter `answer`."""
    options = record.get("options")
    if not isinstance(options, list) or not 2 <= len(options) <= len(ascii_uppercase):
        raise DataError(Reason.WRONG_TYPE, "not a list of choices", column="options", remedy=_WRONG_FILE)
    letter = _letter(text(record, "answer"), len(options), "answer")
    question = with_choices(text(record, "question"), options)
    return Item(question, letter, optional_text(record, "category"), _id(record, "question_id"))


def read_gpqa(record: dict[str, Any], seed: int) -> Item:
    """Read GPQA: the correct answer and three others, in an order drawn from the seed and the question."""
    question = text(record, "Question").strip()
    choices = [text(record, "Correct Answer"), *(text(record, f"Incorrect Answer {i}") for i in (1, 2, 3))]
    order = random.Random(f"{seed}:{question}").sample(range(4), 4)
    shuffled = with_choices(question, [choices[i].strip() for i in order])
    return Item(
        shuffled, ascii_uppercase[order.index(0)], optional_text(record, "High-level domain"), _id(record, "Record ID")
    )


def read_arc(record: dict[str, Any], seed: int) -> Item:
    """Read ARC: `choices` with texts and labels, which are mostly letters and sometimes digits; all become letters."""
    choices = record.get("choices")
    texts, labels = (choices.get("text"), choices.get("label")) if isinstance(choices, dict) else (None, None)
    if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
        raise DataError(
            Reason.WRONG_TYPE,
            "not {text: list, label: list}",
            column="choices",
            remedy=_WRONG_FILE,
        )
    key = text(record, "answerKey")
    if key not in labels:
        raise DataError(
            Reason.NO_GROUND_TRUTH, f"{key!r} is not one of {labels}", column="answerKey", remedy="drop the row"
        )
    return Item(
        with_choices(text(record, "question"), texts), ascii_uppercase[labels.index(key)], None, _id(record, "id")
    )


def with_choices(question: str, choices: Sequence[str]) -> str:
    """Return a question followed by its choices, one a line, and by how to answer."""
    lines = "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    return f"{question}\n\n{lines}\n\nAnswer with the letter of the right choice."


def _letter(value: str, count: int, column: str) -> str:
    letter = value.strip().upper()
    if letter not in list(ascii_uppercase[:count]):
        problem = f"{value!r} is not one of the letters of {count} choices"
        raise DataError(Reason.NO_GROUND_TRUTH, problem, column=column, remedy="drop the row")
    return letter


def _id(record: dict[str, Any], *columns: str) -> str | None:
    return next((scalar(record, name) for name in columns if record.get(name) is not None), None)


BENCHMARKS = {
    "aime24": Benchmark(read_problem, "HuggingFaceH4/aime_2024", "train"),
    "aime25": Benchmark(read_problem, "math-ai/aime25"),
    "amc23": Benchmark(read_problem, "math-ai/amc23"),
    "math500": Benchmark(read_problem, "HuggingFaceH4/MATH-500"),
    "minerva": Benchmark(read_problem, "math-ai/minervamath"),
    "olympiadbench": Benchmark(read_olympiad, "Hothan/OlympiadBench", "train", "OE_TO_maths_en_COMP"),
    "mmlu_pro": Benchmark(read_mmlu_pro, "TIGER-Lab/MMLU-Pro", ability="knowledge"),
    "gpqa_diamond": Benchmark(read_gpqa, "Idavidrein/gpqa", "train", "gpqa_diamond", ability="science"),
    "arc_challenge": Benchmark(read_arc, "allenai/ai2_arc", "test", "ARC-Challenge", ability="science"),
}


def mapping(name: str, template: Template, seed: int) -> MapRow:
    """Return the function from record to row for one benchmark."""
    benchmark = BENCHMARKS[name]

    def to_row(record: dict[str, Any], index: int, split: str) -> Row:
        item = benchmark.read(record, seed)
        prompt = chat(item.question, template)
        return Row(name, prompt, None, item.answer, index, split, item.level, item.id, benchmark.ability)

    return to_row


def locate(name: str, inputs: Sequence[str] | None, several: bool) -> Source:
    """Return the source of a benchmark.

    Args:
        name: the benchmark.
        inputs: the values of --input; None for the hub.
        several: whether --input is a folder of benchmarks.

    Raises:
        DataError: the folder contains nothing of this name.
    """
    benchmark = BENCHMARKS[name]
    on_hub = Source("test", hub=benchmark.hub, hub_config=benchmark.hub_config, hub_split=benchmark.hub_split)
    if inputs is None:
        return on_hub
    if several:
        candidates = [Path(inputs[0]) / f"{name}{suffix}" for suffix in ("", *SUFFIXES)]
        inputs = [str(path) for path in candidates if path.exists()][:1]
        if not inputs:
            remedy = f"expected {name} with one of {', '.join(SUFFIXES)}"
            raise DataError(
                Reason.UNREADABLE, f"no {name} in this folder", file=str(candidates[0].parent), remedy=remedy
            )
    found = find(inputs, SPLITS)[0]
    return replace(on_hub, hub=found.hub) if found.hub else replace(found, split="test")


def make(flags: Flags) -> None:
    """Make the parquet files of the chosen benchmarks."""
    several = len(flags.benchmark) > 1
    jobs = [
        Job(f"{name}.parquet", locate(name, flags.input, several), mapping(name, flags.template, flags.choice_seed))
        for name in flags.benchmark
    ]
    report(run("benchmarks", jobs, options_of(flags), flags.output), flags.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argument_parser("data_preprocess.benchmarks", __doc__, page="docs/data.md")
    names = list(BENCHMARKS)
    parser.add_argument("--benchmark", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--choice-seed", type=int, default=0, help="seed of the order of GPQA's choices")
    add_common_flags(parser, DataSet("benchmarks", __doc__, SPLITS, lambda flags: None, None), input_required=False)
    flags = parser.parse_args(arguments)
    check_flags(parser, flags)
    return run_reporting(lambda: make(flags))


if __name__ == "__main__":
    sys.exit(main())
