"""The command line that all data sets share: `DataSet` describes a data set, and `main` runs its command line."""

import argparse
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from verl_relift.data.errors import DataError, Reason
from verl_relift.data.fields import QUESTION_COLUMNS, question_of
from verl_relift.data.filters import Verify
from verl_relift.data.overlap import DEFAULT_N, NGramIndex
from verl_relift.data.sources import MAX_FIELD_BYTES, Source, find, read_file
from verl_relift.usage import argument_parser

from .pipeline import Job, MapRow, Options, run
from .template import Template

Flags = argparse.Namespace
_LOOKED_AT = 1000  # rows of each source in which a column must turn up


@dataclass(frozen=True, slots=True)
class DataSet:
    """What is particular to one data set.

    Attributes:
        name: the name of the module.
        help: the description on the command line.
        splits: the splits to look for; each becomes one file.
        mapping: returns the function from record to row for the flags of a run.
        columns: the columns that the mapping reads; None for all.
        template: the default system prompt; None keeps the messages as they are.
        hub_config: default configuration of the hub data set.
        levels: the values of `--difficulty`; empty if the set has no levels.
        add_flags: adds flags of the data set to the parser.
        required_columns: flags that name columns which every row has, unless it is faulty.
        optional_columns: flags that name columns which may be missing from a row, but not from every row.
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
    required_columns: tuple[str, ...] = ()
    optional_columns: tuple[str, ...] = ()


def main(data_set: DataSet, arguments: Sequence[str] | None = None) -> int:
    """Run a data set's command line.

    Returns:
        The exit status, 0 or 1. A fault is reported in one line on stderr.
    """
    parser = argument_parser(f"data_preprocess.{data_set.name}", data_set.help, page="docs/data.md")
    add_common_flags(parser, data_set)
    if data_set.add_flags is not None:
        data_set.add_flags(parser)
    flags = parser.parse_args(arguments)
    check_flags(parser, flags)
    return run_reporting(lambda: make(data_set, flags))


def run_reporting(action: Callable[[], None]) -> int:
    """Run `action`, and report a fault of the data or the disk in one line on stderr.

    Returns:
        The exit status: 0, 1 after a fault, 130 after Ctrl-C.
    """
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
    for source in sources:
        _require_columns([source], flags, data_set.required_columns, "name it with")
    _require_columns(sources, flags, data_set.optional_columns, "correct")
    report(run(data_set.name, jobs, options_of(flags), flags.output), flags.output)
    if data_set.required_columns and (unused := _unused_columns(sources, flags, data_set)):
        print(f"not used, because no flag names them: {', '.join(unused)}", file=sys.stderr)


def _unused_columns(sources: Sequence[Source], flags: Flags, data_set: DataSet) -> list[str]:
    """Return the columns of each source's first row that the output does not have, not even a part of them."""
    named = [getattr(flags, name) for name in (*data_set.required_columns, *data_set.optional_columns)]
    used = {part for column in named if column is not None for part in (column, column.partition(".")[0])}
    first = (next(iter(source.records()), None) for source in sources)
    there = dict.fromkeys(name for record in first if record is not None and record.value for name in record.value)
    return [name for name in there if name not in used]


def _require_columns(sources: Sequence[Source], flags: Flags, names: Sequence[str], fix: str) -> None:
    """Check that some of the first rows have the columns that flags name.

    Args:
        sources: whose rows are read.
        flags: of the command line.
        names: of the flags; one without a value names no column.
        fix: what to do with the flag of a column that no row has.

    Raises:
        DataError: none has it, so the flag is missing or misspelt.
    """
    wanted = {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}
    there: dict[str, None] = {}
    for source in sources if wanted else ():
        for record in islice(source.records(), _LOOKED_AT):
            if record.value is not None:
                wanted = {name: column for name, column in wanted.items() if not _may_have(record.value, column)}
                there |= dict.fromkeys(record.value)
            if not wanted:
                return
    if there:
        flag, column = next(iter(wanted.items()))
        problem = f"no row has this column (there are: {', '.join(there)})"
        remedy = f"{fix} --{flag.replace('_', '-')}"
        file = ", ".join(name for source in sources for name in source.describe())
        raise DataError(Reason.MISSING_COLUMN, problem, file=file, column=column, remedy=remedy)


def _may_have(record: dict[str, Any], column: str) -> bool:
    """Return whether a row has a column, or null in place of the one that it lies in."""
    if column in record:
        return True
    value: Any = record
    for name in column.split("."):
        if value is None:
            return True
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True


def report(stats: dict, folder: str) -> None:
    """Print one line a file: the rows read, kept, and left out by reason."""
    for file, counts in stats["files"].items():
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in counts["left_out"].items())
        kept = (
            f"{counts['kept']:,} of {counts['rows_in']:,} rows kept, {counts['demonstrations']:,} with a demonstration"
        )
        line = f"{folder}/{file}: {kept}" + (f"; left out: {left_out}" if left_out else "")
        if removed := counts["demonstrations_removed"]:
            number = "1 demonstration" if removed == 1 else f"{removed:,} demonstrations"
            line += f"; removed {number} without the right answer (--verify), which {folder}/rejected.jsonl lists"
        print(line)
        if not counts["kept"]:
            print(f"warning: {folder}/{file} has no rows", file=sys.stderr)


def options_of(flags: Flags) -> Options:
    """Return the pipeline's options for parsed flags."""
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
    """Read the questions of an evaluation set in any known layout.

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
    """Add the flags that every data set has.

    The help leaves out those that few need; docs/data.md has them.
    """
    add = parser.add_argument
    add(
        "--input",
        required=input_required,
        nargs="+",
        help="a folder, files (parquet, jsonl, json, csv, tsv) or a hub id (with --hub-config NAME)",
    )
    add("--output", required=True, help="folder for the parquet files, stats.json and rejected.jsonl")
    add("--hub-config", default=data_set.hub_config, help=SUPPRESS)
    default = f"the system prompt, see data_preprocess/templates; default: {data_set.template or 'keep the messages'}"
    add("--template", type=Template, choices=list(Template), default=data_set.template, help=default)
    add("--tokenizer", help="folder or hub id; counts tokens for the limits")
    add("--max-prompt-tokens", type=positive, help="leave out longer prompts (--max-target-tokens N: demonstrations)")
    add("--max-target-tokens", type=positive, help=SUPPRESS)
    add(
        "--verify",
        type=Verify,
        choices=list(Verify),
        nargs="?",
        const=Verify.ROW,
        help="grade demonstrations; leave out the row (default) or the target of a wrong one",
    )
    add("--dedup", action="store_true", help="of questions that differ only in case and space, keep the first")
    add(
        "--decontaminate",
        nargs="+",
        metavar="FILE",
        help=f"leave out questions that share {DEFAULT_N} (--ngram N) words in a row with these files",
    )
    add("--ngram", type=positive, default=DEFAULT_N, help=SUPPRESS)
    add("--limit", type=positive, help="keep at most N rows a file: the first or, with --seed S, a sample")
    add("--seed", type=int, help=SUPPRESS)
    if data_set.levels:
        add("--difficulty", nargs="+", choices=data_set.levels, default=(), help="keep these levels")
    add(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="fail (default): a faulty row ends the run; skip: it is listed in rejected.jsonl",
    )
    add("--max-field-bytes", type=positive, default=MAX_FIELD_BYTES, help=SUPPRESS)
    add("--quiet", action="store_true", help="no progress bar")


def check_flags(parser: argparse.ArgumentParser, flags: Flags) -> None:
    """Exit with a usage message if flags contradict each other."""
    if (flags.max_prompt_tokens or flags.max_target_tokens) and not flags.tokenizer:
        parser.error("--max-prompt-tokens and --max-target-tokens count tokens; give --tokenizer too")
    if getattr(flags, "difficulty", ()) and getattr(flags, "level_column", "") is None:
        parser.error("--difficulty needs --level-column")


def positive(value: str) -> int:
    """Parse a positive integer.

    Raises:
        argparse.ArgumentTypeError: the number is not positive.
    """
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return number
