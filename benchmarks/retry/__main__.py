"""Measures what asking all questions of a step again costs, per sampled token, against asking them at first.

    python -m benchmarks.retry --output FILE [--steps N]

One run on a CPU with a random model, which fails every question: in the first half of the steps nothing is asked again,
in the second half every question once, behind a short head of its solution. Answers end at the length limit only, so
that both rounds sample a known number of tokens. The cost of the second round is what `timing_s/gen` rises by: vLLM,
verification of the solutions, grading, storing, and reading the groups.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.machine import machine
from benchmarks.report import Report, Spread
from verl_relift.testing.launch import finish, start

GSM8K = Path(__file__).parents[2] / "tests" / "data" / "gsm8k"
WARM_UP = 2  # steps that are left out


def prepare(folder: Path) -> tuple[str, ...]:
    """Make data and a random model; returns the overrides that name them."""
    for arguments in (
        ["data_preprocess.gsm8k", "--input", str(GSM8K), "--output", f"{folder}/data", "--template", "think"],
        ["verl_relift.quickstart.random_model", "--output", f"{folder}/model"],
    ):
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True)
    return (
        f"data.train_files={folder}/data/train.parquet",
        f"data.val_files={folder}/data/test.parquet",
        f"actor_rollout_ref.model.path={folder}/model",
    )


def overhead(records: Sequence[dict], first_step: int) -> tuple[Spread, float, float]:
    """Return seconds per token of second rounds over those of first ones, and the medians of both in microseconds.

    Args:
        records: lines of `metrics.jsonl`; all questions are asked again from `first_step` on.
    """
    before = [r for r in records if WARM_UP < r["step"] < first_step]
    after = [r for r in records if r["step"] > first_step]
    tokens = before[0]["perf/total_num_tokens"] * _share(before[0])
    first = median(r["timing_s/gen"] for r in before)
    seconds = [(r["timing_s/gen"] - first) / r["method/second_round_tokens"] for r in after]
    return Spread.of([s / (first / tokens) for s in seconds]), 1e6 * first / tokens, 1e6 * median(seconds)


def _share(record: dict) -> float:
    """Return the share of answers in all tokens of a step."""
    return record["response_length/mean"] / (record["response_length/mean"] + record["prompt_length/mean"])


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--steps", type=int, default=24, help="half of them without a second round (%(default)s)")
    arguments = parser.parse_args()
    report, first_step = Report(), arguments.steps // 2 + 1
    report.add(f"# Cost of a second round\n\n{machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        overrides = (
            *prepare(Path(folder)),
            "method=hint_retry",
            "method.levels=[0.02]",
            f"method.first_step={first_step}",
            "method.demonstrations.max_tokens=1024",
            "data.max_response_length=128",
            "data.train_batch_size=16",
            "actor_rollout_ref.actor.ppo_mini_batch_size=16",
            "actor_rollout_ref.rollout.ignore_eos=true",
            f"trainer.total_training_steps={arguments.steps}",
            "trainer.save_freq=-1",
        )
        records = finish(start("smoke", run, *overrides), run, seconds=3600)
    ratio, first, second = overhead(records, first_step)
    report.table(
        ("round", "microseconds per sampled token, median", "over the first, median (range)"),
        [("first", f"{first:.1f}", ""), ("second", f"{second:.1f}", ratio.text(2))],
    )
    arguments.output.write_text("\n".join(report.lines) + "\n")


if __name__ == "__main__":
    main()
