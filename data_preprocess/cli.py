"""The command line that all data sets share: `DataSet` describes one, `main` runs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_relift.data.errors import DataError
from verl_relift.data.fields import QUESTION_COLUMNS, question_of
from verl_relift.data.filters import Verify
from verl_relift.data.overlap import DEFAULT_N, NGramIndex
from verl_relift.data.sources import MAX_FIELD_BYTES, find, read_file

from .pipeline import Job, MapRow, Options, run
from .template import Template

Flags = argparse.Namespace


@dataclass(frozen=True, slots=True)
class DataSet:
    """What is particular to one data set.

    `mapping` gives the function from record to row for the flags of a run; `columns` are those it reads; `template` is
    the default; `levels` the values that `--difficulty` takes, if the set has levels; `add_flags` adds flags of its
    own.
    """

    name: str
    help: str
    splits: tuple[str, ...]
    mapping: Callable[[Flags], MapRow]
    columns: Sequence[str] | None
    template: Template | None = Template.THINK
    hub_config: str | None = None
    levels: tuple[str, ...] = ()
    add_flags: Callable[[argparse.ArgumentParser], None] | None = None


def main(data_set: DataSet, arguments: Sequence[str] | None = None) -> int:
    """Run a data set's command line; the exit status, 0 or 1. A fault is one line on stderr."""
    parser = argparse.ArgumentParser(
        prog=f"data_preprocess.{data_set.name}",
        description=data_set.help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common_flags(parser, data_set)
    if data_set.add_flags is not None:
        data_set.add_flags(parser)
    flags = parser.parse_args(arguments)
    check_flags(parser, flags)
    return run_reporting(lambda: make(data_set, flags))


def run_reporting(action: Callable[[], None]) -> int:
    """Run `action`; what is wrong with the data or the disk is one line on stderr and exit status 1."""
    try:
        action()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        what = error.strerror or str(error)
        print(f"error: {error.filename}: {what}" if error.filename else f"error: {what}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    return 0


def make(data_set: DataSet, flags: Flags) -> None:
    """Make the parquet files of a data set and print what was made."""
    to_row = data_set.mapping(flags)
    splits = (flags.split,) if getattr(flags, "split", None) else data_set.splits
    sources = find(flags.input, splits, flags.hub_config)
    jobs = [Job(f"{source.split}.parquet", source, to_row, data_set.columns) for source in sources]
    report(run(data_set.name, jobs, options_of(flags), flags.output), flags.output)


def report(stats: dict, folder: str) -> None:
    """One line a file: what came in, what was kept, what was left out and why."""
    for file, counts in stats["files"].items():
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in counts["left_out"].items())
        kept = (
            f"{counts['kept']:,} of {counts['rows_in']:,} rows kept, {counts['demonstrations']:,} with a demonstration"
        )
        print(f"{folder}/{file}: {kept}" + (f"; left out: {left_out}" if left_out else ""))


def options_of(flags: Flags) -> Options:
    """The pipeline's options from parsed flags."""
    contamination = None
    if flags.decontaminate:
        contamination = NGramIndex(flags.ngram)
        for file in flags.decontaminate:
            contamination.add(file, read_questions(file))
    recorded = {name: value for name, value in vars(flags).items() if name not in ("output", "quiet")}
    return Options(
        on_error=flags.on_error,
        dedup=flags.dedup,
        verify=flags.verify,
        difficulty=getattr(flags, "difficulty", ()),
        limit=flags.limit,
        seed=flags.seed,
        tokenizer=flags.tokenizer,
        max_prompt_tokens=flags.max_prompt_tokens,
        max_target_tokens=flags.max_target_tokens,
        max_field_bytes=flags.max_field_bytes,
        contamination=contamination,
        progress=not flags.quiet,
        flags=recorded,
    )


def read_questions(file: str) -> list[str]:
    """The questions of an evaluation set in any known layout.

    Raises:
        DataError: the first fault, with its place.
    """
    questions = []
    for record in read_file(Path(file), ("prompt", *QUESTION_COLUMNS)):
        try:
            if record.error is not None:
                raise record.error
            questions.append(question_of(record.value))
        except DataError as error:
            raise error.at(record.file, record.row) from None
    return questions


def add_common_flags(parser: argparse.ArgumentParser, data_set: DataSet, input_required: bool = True) -> None:
    """The flags that every data set has."""
    add = parser.add_argument
    add("--input", required=input_required, nargs="+", help="a folder, files (parquet, jsonl, json, csv) or a hub id")
    add("--output", required=True, help="folder for the parquet files, stats.json and rejected.jsonl")
    add("--hub-config", default=data_set.hub_config, help="configuration of a hub data set")
    kinds = "none: the question alone; boxed, think: with the system prompts in data_preprocess/templates"
    default = f"default: {data_set.template or 'messages as they are'}"
    add("--template", type=Template, choices=list(Template), default=data_set.template, help=f"{kinds}; {default}")
    add("--tokenizer", help="folder or hub id; counts tokens, and filters with the two limits below")
    add("--max-prompt-tokens", type=positive, help="leave out longer prompts")
    add("--max-target-tokens", type=positive, help="leave out longer demonstrations; they are never cut")
    add(
        "--verify",
        type=Verify,
        choices=list(Verify),
        nargs="?",
        const=Verify.ROW,
        help="grade demonstrations; where the answer isn't the ground truth leave out the row (default) or the target",
    )
    add("--dedup", action="store_true", help="keep the first of equal questions (case and white space aside)")
    add(
        "--decontaminate",
        nargs="+",
        metavar="FILE",
        help="leave out training questions that share words in a row with these",
    )
    add(
        "--ngram",
        type=positive,
        default=DEFAULT_N,
        help=f"how many words in a row count as shared (default {DEFAULT_N})",
    )
    add("--limit", type=positive, help="keep at most so many rows a file: the first, or with --seed a sample")
    add("--seed", type=int, help="seed of the sample that --limit takes")
    if data_set.levels:
        add("--difficulty", nargs="+", choices=data_set.levels, default=(), help="keep these levels")
    add(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="a faulty row ends the run, or is listed in rejected.jsonl",
    )
    add("--max-field-bytes", type=positive, default=MAX_FIELD_BYTES, help="a longer field is a fault")
    add("--quiet", action="store_true", help="no progress bar")


def check_flags(parser: argparse.ArgumentParser, flags: Flags) -> None:
    """End with a usage message if flags contradict each other."""
    if (flags.max_prompt_tokens or flags.max_target_tokens) and not flags.tokenizer:
        parser.error("--max-prompt-tokens and --max-target-tokens count tokens: give --tokenizer")
    if getattr(flags, "difficulty", ()) and getattr(flags, "level_column", "") is None:
        parser.error("--difficulty needs --level-column")


def positive(value: str) -> int:
    """A positive integer from the command line."""
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return number
