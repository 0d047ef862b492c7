"""Compare two ways of moving rollouts through TransferQueue: `python -m benchmarks.engine.transfer`.

One side packs each column into a buffer, the other sends a frame per row. A turn writes the columns of rollouts once
and reads them like a training step: all of them for the actor, some for the trainer. Each side has its own Ray and
TransferQueue.
"""

import argparse
import statistics
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.report import Report, Spread
from benchmarks.sides import Side

ROWS = (128, 512)
TURNS = 9


def main() -> None:
    """Run the command."""
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
            del turns[0]  # the warm-up
            for what in ("seconds", "core-seconds"):
                ratio = Spread.of([t["packed"][what] / t["plain"][what] for t in turns])
                medians = [statistics.median(t[kind][what] for t in turns) for kind in ("packed", "plain")]
                rows.append((count, what, *(f"{median:.3f}" for median in medians), ratio.text(2)))
    report.add(f"Median of {TURNS} turns after a warm-up turn; in parentheses the lowest and the highest.\n")
    report.table(("rollouts", "per step", "packed", "a frame per row", "packed : a frame per row"), rows)
    if options.output:
        options.output.write_text("\n".join(report.lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
