"""`plan --trace` of every launch script: `python -m benchmarks.engine.launches [--layers N] [--output FILE.md]`.

Each script is asked which training command it gives, and that command is planned and traced for GPUs, on a CPU and
without the model's weights. The table has the time and the memory that this takes, and the peaks as planned and traced.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import machine
from benchmarks.report import Report
from verl_relift.testing.launches import ROOT, Launch, differences, launches, plan, traces

GIB = 1 << 30
MOST_SECONDS, MOST_BYTES = 90, 4 * GIB  # of one launch, on two cores


def measure(launch: Launch) -> tuple[list[dict[str, Any]], float, int]:
    """Plan and trace a launch; return the traced ranks, seconds, and the most bytes that its processes had together.

    Raises:
        RuntimeError: `plan` failed.
    """
    with tempfile.TemporaryDirectory() as name, open(Path(name) / "answer", "w+") as answer:
        began, most = time.monotonic(), 0
        process = subprocess.Popen(plan(launch.arguments(Path(name))), cwd=ROOT, stdout=answer)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                family = [root, *root.children(recursive=True)]
                most = max(most, sum(one.memory_info().rss for one in family))
            except psutil.Error:
                continue  # one of them has ended
            time.sleep(0.1)
        seconds = time.monotonic() - began
        if process.returncode not in (0, 1):  # 1: the run does not fit
            raise RuntimeError(f"{launch}: plan ended with status {process.returncode}")
        answer.seek(0)
        return traces(answer.read()), seconds, most


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="number of layers instead of the models'")
    parser.add_argument("--output", type=Path, help="also write the report to this Markdown file")
    options = parser.parse_args()
    report, rows, good = Report(), [], True
    report.add(f"# `plan --trace` of every launch script, {datetime.now(UTC):%Y-%m-%d}\n")
    report.add(f"{machine()}. Command: `python -m benchmarks.engine.launches`\n")
    for launch in launches(options.layers):
        ranks, seconds, most = measure(launch)
        peaks = [pair for rank in ranks for pair in differences(rank).values()]
        planned, traced = max(peaks, key=lambda pair: pair[1])
        worst = max(abs(a / b - 1) for a, b in peaks)
        good &= seconds <= MOST_SECONDS and most <= MOST_BYTES
        peak = f"{planned / GIB:.2f} / {traced / GIB:.2f}"
        rows.append((launch.script, launch.model, f"{seconds:.0f}", f"{most / GIB:.2f}", peak, f"{worst:.1%}"))
        print(*rows[-1], flush=True)
    report.table(
        ("script", "model", "s", "GiB of plan", "peak of an update, planned / traced GiB", "largest difference"), rows
    )
    if options.output:
        options.output.write_text("\n".join(report.lines).rstrip() + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
