"""Measures what demonstrations in the RL update cost per trained token, against GRPO.

    python -m benchmarks.joining --output FILE [--steps N] [--turns N] [--methods NAME ...]

Runs on a CPU with a random model, GRPO and each method in turn. Answers end at the length limit only, so that every
step of a method has a known number of tokens. The cost is what a step takes beside sampling, from the graded groups on;
where a method verifies demonstrations before it samples, `whole`, all of the step, has that too. Both are divided by
the tokens of the update's rows, demonstrations included.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.machine import machine
from benchmarks.report import Report, Spread
from benchmarks.retry.__main__ import prepare
from verl_relift.testing.launch import finish, start

WARM_UP = 2  # steps that are left out
METHODS = ("luffy", "rl_plus", "srft", "hpt", "chord_mu", "chord_phi")
SETTINGS = {"hpt": ("method.rollouts=keep",)}  # otherwise it trains far fewer tokens of questions that all fail
_SAMPLING = ("timing_s/gen", "timing_s/update_weights", "timing_s/save_checkpoint")


def per_token(records: Sequence[dict]) -> tuple[float, float]:
    """Return microseconds per trained token beside sampling, and of the whole step: medians over a run's steps."""
    beside, whole = [], []
    for record in records:
        if record["step"] <= WARM_UP:
            continue
        tokens = record["perf/total_num_tokens"]
        if "relift/sft_loss" in record:  # demonstrations of a batch of their own are not in verl's count
            prompts = record["prompt_length/mean"] * record["method/demonstrations_used"]
            tokens += record["method/demonstration_tokens"] + prompts
        step = record["timing_s/step"]
        beside.append(1e6 * (step - sum(record.get(name, 0.0) for name in _SAMPLING)) / tokens)
        whole.append(1e6 * step / tokens)
    return median(beside), median(whole)


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--steps", type=int, default=12, help="of a run (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="runs of each method (%(default)s)")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    arguments = parser.parse_args()
    made: dict[str, list[tuple[float, float]]] = {name: [] for name in ("grpo", *arguments.methods)}
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(folder))
        for turn in range(arguments.turns):
            for method, results in made.items():
                run = Path(folder) / f"{method}-{turn}"
                overrides = (
                    *data,
                    f"method={method}",
                    *SETTINGS.get(method, ()),
                    "data.max_response_length=128",
                    "data.train_batch_size=16",
                    "actor_rollout_ref.actor.ppo_mini_batch_size=16",
                    "actor_rollout_ref.rollout.ignore_eos=true",
                    f"trainer.total_training_steps={arguments.steps}",
                    "trainer.save_freq=-1",
                )
                results.append(per_token(finish(start("smoke", run, *overrides), run, seconds=3600)))
    report = Report()
    report.add(f"# Cost of demonstrations in the RL update\n\n{machine()}\n")
    rows = []
    for method, results in made.items():
        ratios = [
            Spread.of([one[part] / other[part] for one, other in zip(results, made["grpo"], strict=True)]).text(2)
            for part in (0, 1)
        ]
        rows.append((method, f"{median(beside for beside, _ in results):.1f}", *ratios))
    report.table(("method", "microseconds per token beside sampling", "over GRPO", "whole, over GRPO"), rows)
    arguments.output.write_text("\n".join(report.lines) + "\n")


if __name__ == "__main__":
    main()
