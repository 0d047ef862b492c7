"""Measure grading's share of a training step: `python -m benchmarks.grading.share --output DIR [key=value ...]`.

Trains the quickstart's model for a few steps with a reward function that logs when and how long it grades each
response. Reports per step

- the wall-clock seconds from the arrival of the last group to its last grade. This is what grading adds to a step,
  because all other responses are graded while more of them are generated;
- the processor seconds of grading, as an upper bound.

`outputs/quickstart` must have the data and the base model of `make quickstart`. Further arguments go to training.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from verl_relift.rewards import verl_hook

SHARE = 0.02
SETTLED = 2  # steps until vLLM and torch have compiled and warmed up
LOG = "grades.jsonl"


async def compute_score(*arguments: Any, log: str, **named: Any) -> dict[str, Any]:
    """Call `verl_hook.compute_score` and log when it began and ended and its processor time.

    The processor time of a response that needs a worker process includes other work that the thread did meanwhile.

    Args:
        arguments: positional arguments of `compute_score`.
        log: JSON lines file, one line per response.
        named: named arguments of `compute_score`.
    """
    began, cpu = time.time(), time.thread_time()
    score = await verl_hook.compute_score(*arguments, **named)
    line = {"began": began, "ended": time.time(), "cpu_s": time.thread_time() - cpu}
    with open(log, "a", encoding="ascii") as file:
        file.write(json.dumps(line) + "\n")
    return score


def shares(grades: list[dict[str, float]], step_seconds: list[float], group: int) -> list[tuple[float, float, float]]:
    """Return (wait, processor, step) seconds of each step.

    Args:
        grades: log lines, in the order in which grading ended.
        step_seconds: seconds of each step.
        group: rollouts per question.
    """
    rows = []
    per_step = len(grades) // len(step_seconds)
    for index, step_s in enumerate(step_seconds):
        graded = grades[index * per_step : (index + 1) * per_step]
        last = sorted(graded, key=lambda line: line["began"])[-group:]
        wait = max(line["ended"] for line in graded) - last[0]["began"]
        rows.append((wait, sum(line["cpu_s"] for line in graded), step_s))
    return rows


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the run; must not exist")
    parser.add_argument("--steps", type=int, default=12)
    arguments, overrides = parser.parse_known_args()
    arguments.output.mkdir(parents=True)
    log, run = arguments.output.resolve() / LOG, arguments.output / "run"
    given = [
        f"trainer.default_local_dir={run}",
        f"trainer.total_training_steps={arguments.steps}",
        "trainer.save_freq=-1",
        "reward.custom_reward_function.path=pkg://benchmarks.grading.share",
        f"+reward.custom_reward_function.reward_kwargs.log={log}",
        *overrides,
    ]
    command = [sys.executable, "-m", "verl_relift.train", "--config-name", "quickstart", *given]
    root = str(Path(__file__).parents[2])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": root})
    group = OmegaConf.load(run / "config.yaml").actor_rollout_ref.rollout.n
    metrics = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    step_seconds = [row["timing_s/step"] for row in metrics if "timing_s/step" in row]
    grades = [json.loads(line) for line in log.read_text().splitlines()]
    rows = shares(grades, step_seconds, group)[SETTLED:]
    print(
        f"\n{len(grades)} responses in {len(step_seconds)} steps; steps {SETTLED + 1} to {len(step_seconds)}, median:\n"
    )
    print("| | seconds | of a step |\n|---|---|---|")
    for name, column in (
        ("arrival of the last group to its last grade, wall clock", 0),
        ("grading, processor time", 1),
    ):
        share = statistics.median(row[column] / row[2] for row in rows)
        worst = max(row[column] / row[2] for row in rows)
        seconds = statistics.median(row[column] for row in rows)
        print(f"| {name} | {seconds:.4f} | {share:.2%} (at most {worst:.2%}; bar {SHARE:.0%}) |")
    print(f"| step | {statistics.median(row[2] for row in rows):.2f} | |")


if __name__ == "__main__":
    main()
