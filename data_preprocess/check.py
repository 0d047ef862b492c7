"""A report on whether parquet files are fit to train on or to evaluate on, in seconds, before a GPU is taken.

    python -m data_preprocess.check train.parquet test.parquet [--tokenizer DIR --max-prompt-tokens N
    --max-target-tokens N]

The checks cover columns and types, empty and duplicate prompts, ground truths that no answer can be graded against,
demonstrations with a wrong answer, token lengths over the limits, and questions that training and validation share. A
file is a validation file if --validation names it, or if its name or the split in its rows says test, val or eval. The
report names five faults of a kind, and with --json up to 1,000. Validation files need no `target`. With --own-reward,
ground truths are for a reward function of your own: any value but null will do, and no demonstration is graded.

Exit status: 0 if the files are fit, 1 if not, 2 if one of them does not exist. Programs call
`verl_relift.data.check.check_files`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from verl_relift.data.check import TOKEN_SAMPLE, check_files
from verl_relift.data.findings import Kind, Report
from verl_relift.data.overlap import DEFAULT_N
from verl_relift.usage import argument_parser

from .cli import positive, run_reporting


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argument_parser("data_preprocess.check", __doc__, "FILE ...", "docs/data.md")
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="parquet files")
    add(
        "--validation",
        nargs="+",
        default=[],
        metavar="FILE",
        help="validation files, whatever their names",
    )
    add("--tokenizer", help="folder or hub id; lengths are then tokens")
    add("--max-prompt-tokens", type=positive)
    add("--max-target-tokens", type=positive)
    add("--no-demonstrations", action="store_true", help="training needs no target (RL only)")
    add("--own-reward", action="store_true", help="a reward function of your own grades (docs/own-reward.md)")
    add("--no-verify", action="store_true", help="do not grade demonstrations or try ground truths")
    add(
        "--sample",
        type=positive,
        metavar="N",
        help="grade and measure only N rows a file, evenly spaced (default: all)",
    )
    rows = f"tokenize N rows a file, evenly spaced, or all of them (default {TOKEN_SAMPLE})"
    add("--token-sample", metavar="N|all", type=_number_or_all, default=TOKEN_SAMPLE, help=rows)
    add("--ngram", type=positive, default=DEFAULT_N, help="consecutive words that two overlapping questions share")
    add(
        "--allow",
        nargs="+",
        type=Kind,
        choices=list(Kind),
        default=[],
        metavar="KIND",
        help="faults to count as warnings",
    )
    add(
        "--json", action="store_true", help="print the report as JSON, with every fault up to 1,000 of a kind (else: 5)"
    )
    add("--stats", metavar="PNG", help="write length histograms to this file and print counts by source and level")
    add("--quiet", action="store_true", help="no progress bar")
    flags = parser.parse_args(arguments)
    if (flags.max_prompt_tokens or flags.max_target_tokens) and not flags.tokenizer:
        parser.error("--max-prompt-tokens and --max-target-tokens count tokens; give --tokenizer too")
    files = [Path(file) for file in dict.fromkeys([*flags.files, *flags.validation])]
    if missing := [file for file in files if not file.is_file()]:
        for file in missing:
            print(f"{file}: {'a folder; name its files' if file.is_dir() else 'no such file'}", file=sys.stderr)
        return 2
    reports = []
    status = run_reporting(lambda: reports.append(_run(flags)))
    return status or (0 if reports[0].ok else 1)


def _number_or_all(value: str) -> int | None:
    return None if value == "all" else positive(value)


def _run(flags: argparse.Namespace) -> Report:
    report = check_files(
        [file for file in flags.files if file not in flags.validation],
        flags.validation,
        tokenizer=flags.tokenizer,
        max_prompt_tokens=flags.max_prompt_tokens,
        max_target_tokens=flags.max_target_tokens,
        demonstrations=not flags.no_demonstrations,
        verify=not flags.no_verify,
        mathematics=not flags.own_reward,
        sample=flags.sample,
        token_sample=flags.token_sample,
        ngram=flags.ngram,
        allowed=flags.allow,
        progress=not flags.quiet,
    )
    if flags.stats:
        from .plot import length_histograms

        length_histograms(report.files, flags.stats)
    print(json.dumps(report.as_dict(), indent=2) if flags.json else report.table(details=bool(flags.stats)))
    if flags.own_reward and not flags.json and any(summary.demonstrations for summary in report.files):
        print("demonstrations are not graded here: python -m verl_relift.grade does it with your reward function")
    return report


if __name__ == "__main__":
    sys.exit(main())
