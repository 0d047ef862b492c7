"""Rollouts through TransferQueue, packed columns against a frame a row: `python -m benchmarks.engine.transfer`.

Written once with the columns that rollouts have, read as a training step reads them: all of them by the actor, some
by the trainer. The sides take turns; each has a Ray and a TransferQueue of its own.
"""

import argparse
import statistics
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.loop.turns import Spread
from benchmarks.machine import machine
from benchmarks.report import Report
from benchmarks.sides import Side

ROWS = (128, 512)
TURNS = 9


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also write the report to this Markdown file")
    options = parser.parse_args()
    report = Report()
    report.add(f"# Rollouts through TransferQueue, {datetime.now(UTC):%Y-%m-%d}\n")
    report.add(
        f"{machine()}; TransferQueue {version('TransferQueue')}. Command: `python -m benchmarks.engine.transfer`\n"
    )
    rows = []
    with ExitStack() as stack:
        sides = {
            kind: stack.enter_context(Side("benchmarks.engine.transfer_worker", kind)) for kind in ("packed", "plain")
        }
        for count in ROWS:
            turns = []
            for turn in range(1 + TURNS):
                order = sorted(sides, reverse=bool(turn % 2))
                turns.append({kind: sides[kind].ask("step", rows=count)[0] for kind in order})
            del turns[0]  # to warm up
            for what in ("seconds", "core-seconds"):
                ratio = Spread.of([t["packed"][what] / t["plain"][what] for t in turns])
                medians = [statistics.median(t[kind][what] for t in turns) for kind in ("packed", "plain")]
                rows.append((count, what, *(f"{median:.3f}" for median in medians), ratio.text(2)))
    report.add(f"Median of {TURNS} turns after one to warm up; in parentheses the lowest and the highest.\n")
    report.table(("rollouts", "of a step", "packed", "a frame a row", "packed : a frame a row"), rows)
    if options.output:
        options.output.write_text("\n".join(report.lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
