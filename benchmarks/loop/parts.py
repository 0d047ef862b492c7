"""Compare an update of a pretrained model with Hugging Face's: `python -m benchmarks.loop.parts --output FILE.md`

Both sides make the same GRPO update on the same random tokens, one process of one thread each, fp32, and take turns.
Hugging Face has torch's fused AdamW and micro-batches of rollouts sorted by length, whichever size is faster. `make
bench` runs the parts that need no pretrained model (benchmarks.engine); start and transfer of weights are in the report
of `benchmarks.loop`.
"""

import argparse
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.engine.__main__ import check_same_work, update
from benchmarks.engine.batch import Rollouts
from benchmarks.machine import machine
from benchmarks.report import Report, Spread
from benchmarks.sides import Side
from verl_relift.pretrained.fetch import fetch
from verl_relift.pretrained.models import MODELS, SMOLLM2

ROLLOUTS = Rollouts(sequences=16, prompt=100, shortest=64, longest=256)
MICRO_BATCHES = (512, 2048)  # tokens


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, default=SMOLLM2.name)
    parser.add_argument("--turns", type=int, default=3, help="default %(default)s")
    options = parser.parse_args()
    model = str(fetch(MODELS[options.model]))
    tokens = sum(ROLLOUTS.lengths())
    seconds: dict[str, list[float]] = {}
    with (
        Side("benchmarks.engine.worker", model, "1", "false") as megatron,
        Side("benchmarks.engine.hf", model, "true") as hugging_face,
    ):
        sides = {"verl_relift": megatron, "Hugging Face": hugging_face}
        runs = [(f"{name}, {size} tokens", side, size) for name, side in sides.items() for size in MICRO_BATCHES]
        for turn in range(options.turns + 1):
            answers = {name: update(side, ROLLOUTS, size) for name, side, size in runs}
            if not turn:  # it warms up, and both sides have the same weights in their first update
                check_same_work(answers[runs[0][0]], answers[runs[len(MICRO_BATCHES)][0]])
            else:
                for name, answer in answers.items():
                    seconds.setdefault(name, []).append(answer["seconds"])
    best = {side: min((n for n in seconds if n.startswith(side)), key=lambda n: min(seconds[n])) for side in sides}
    ratio = Spread.of([theirs / ours for ours, theirs in zip(*(seconds[best[side]] for side in sides), strict=True)])
    report = Report()
    report.add(f"# An update of {options.model}, {datetime.now(UTC):%Y-%m-%d}\n")
    report.add(
        f"{machine()}; one thread a side.\n\nCommand: `python -m benchmarks.loop.parts {' '.join(sys.argv[1:])}`\n"
    )
    report.add(
        f"{tokens:,} tokens; Hugging Face's time / ours, each in its faster form: **{ratio.text(2)}x**; bar 1.0x.\n"
    )
    report.table(("side, micro-batch", "seconds"), [(n, f"{statistics.median(s):.1f}") for n, s in seconds.items()])
    options.output.write_text("\n".join(report.lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
