"""Grade the ground truths of parquet files: `python -m benchmarks.grading.ground_truths FILE.parquet ...`

Each distinct ground truth is an answer to itself, which must be right, and so are its copies with one digit raised by
one, of which none may be. Exit status 1: one was judged the other way.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.machine import machine
from benchmarks.report import Report
from verl_relift.rewards import Grader
from verl_relift.testing.corpora import boxed


def read(files: Sequence[Path]) -> dict[str, list[str]]:
    """Return distinct ground truths by data source; one that several sources have counts for the first."""
    sources: dict[str, str] = {}
    for file in files:
        table = pq.read_table(file, columns=["data_source", "reward_model"])
        for row in table.to_pylist():
            sources.setdefault(row["reward_model"]["ground_truth"], row["data_source"])
    return {name: [truth for truth, of in sources.items() if of == name] for name in dict.fromkeys(sources.values())}


def changed(truth: str) -> Iterator[str]:
    """Yield copies of a ground truth, each with one digit raised by one; 9 becomes 0."""
    for place, character in enumerate(truth):
        if character in "0123456789":
            yield truth[:place] + str((int(character) + 1) % 10) + truth[place + 1 :]


def main() -> int:
    """Run the command.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="parquet files in verl's schema")
    parser.add_argument("--output", type=Path, help="also write the report to this Markdown file")
    options = parser.parse_args()
    report, rows, wrong = Report(), [], 0
    report.add(f"# Ground truths against themselves, {datetime.now(UTC):%Y-%m-%d}\n")
    command = f"python -m benchmarks.grading.ground_truths {' '.join(file.name for file in options.files)}"
    report.add(f"{machine()}. Command: `{command}`\n")
    grader = Grader()
    try:
        for source, truths in read(options.files).items():
            same = [(boxed(truth), truth) for truth in truths]
            other = [(boxed(answer), truth) for truth in truths for answer in changed(truth)]
            refused = [pair for pair, grade in zip(same, grader.grade_many(same), strict=True) if not grade.correct]
            paid = [pair for pair, grade in zip(other, grader.grade_many(other), strict=True) if grade.correct]
            rows.append((source, len(same), len(refused), len(other), len(paid)))
            wrong += len(refused) + len(paid)
            for answer, truth in [*refused, *paid]:
                print(f"{source}: {truth!r} is judged the other way by {answer!r}", file=sys.stderr)
    finally:
        grader.close()
    header = ("source", "ground truths", "refused as an answer", "answers with a digit changed", "paid")
    report.table(header, [tuple(f"{value:,}" if isinstance(value, int) else value for value in row) for row in rows])
    if options.output:
        options.output.write_text("\n".join(report.lines).rstrip() + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
