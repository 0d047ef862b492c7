"""Measure an update of a model of real shapes: `python -m benchmarks.engine.vocabulary [--output FILE.md]`.

Three sides make the same GRPO update with entropies, with random weights, one thread each, in turns:

* fp32, log-probs and entropies from the logits of a whole micro-batch (`use_fused_kernels=false`);
* fp32, with the output layer, in blocks of logits (the default);
* bf16 with fp32 masters, in blocks.

Memory is the largest resident memory of each side. `plan_memory --real --cases 0 14` has the bytes of the logits alone.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.engine.batch import Rollouts
from benchmarks.engine.plan_memory import REAL, make_model
from benchmarks.machine import machine
from benchmarks.report import Report, Spread
from benchmarks.sides import Side
from verl_relift.run.environment import prepare_environment

SIDES = {"fp32, at once": ("float32", "false"), "fp32, in blocks": ("float32", "true"), "bf16": ("bfloat16", "true")}
BEFORE, NOW, BF16 = SIDES
ROLLOUTS = Rollouts(sequences=16, prompt=96, shortest=32, longest=256)
MAX_TOKENS = 2048  # three sides at once fit into 24 GB
AGREEMENT = 1e-5  # of the two fp32 sides' losses, and ten times that of their gradient norms, relative


def update(side: Side) -> dict[str, float]:
    """Make one update and return its seconds, loss and gradient norm."""
    return side.ask("update", rollouts=asdict(ROLLOUTS), max_tokens=MAX_TOKENS, entropy=True)[0]


def resident(side: Side) -> int:
    """Return the largest resident memory of a side so far, in MiB."""
    (process,) = side._processes
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def compare(report: Report, name: str, turns: int) -> None:
    """Let the sides take turns with one model and report seconds, memory and ratios.

    Raises:
        SystemExit: the two fp32 sides compute different losses or gradients.
    """
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), name)
        sides = {
            side: Side("benchmarks.engine.worker", folder, "1", "false", *settings) for side, settings in SIDES.items()
        }
        try:
            found = [{side: update(process) for side, process in sides.items()} for _ in range(turns + 1)][1:]
            memory = {side: resident(process) for side, process in sides.items()}
        finally:
            for process in sides.values():
                process.__exit__(None, None, None)
    for turn in found:
        loss, norm = (abs(turn[NOW][value] / turn[BEFORE][value] - 1) for value in ("loss", "grad_norm"))
        if loss > AGREEMENT or norm > 10 * AGREEMENT:
            raise SystemExit(f"the fp32 sides differ: losses by {loss:.1e}, gradient norms by {norm:.1e}")
    report.add(f"## {name}, {sum(ROLLOUTS.lengths()):,} tokens, micro-batches of {MAX_TOKENS:,}, one thread\n")
    rows = []
    for side in SIDES:
        seconds = statistics.median(turn[side]["seconds"] for turn in found)
        against = Spread.of([turn[side]["seconds"] / turn[BEFORE]["seconds"] for turn in found]).text(2)
        faster = Spread.of([turn[NOW]["seconds"] / turn[side]["seconds"] for turn in found]).text(2)
        rows.append((side, f"{seconds:.1f}", against, faster, memory[side]))
    report.table(("side", "s", f"s : {BEFORE} (bar 1.0)", f"{NOW} : s (bar of bf16 1.5)", "resident MiB"), rows)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=REAL, default=["SmolLM2-135M"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    prepare_environment()
    report = Report()
    report.add(
        f"{datetime.now(UTC):%Y-%m-%d}: `{' '.join(['python -m benchmarks.engine.vocabulary', *sys.argv[1:]])}`\n"
    )
    report.add(f"{machine()}.\n")
    for name in arguments.models:
        compare(report, name, arguments.turns)
    if arguments.output:
        arguments.output.write_text("\n".join(report.lines) + "\n")


if __name__ == "__main__":
    main()
