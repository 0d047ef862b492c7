"""Kill a run at random instants: `python -m benchmarks.loop.kills --kills 30 --output DIR [key=value ...]`

Trains the quickstart's task twice with the same settings, once undisturbed and once killed repeatedly with SIGKILL to
all of its processes. A third of the kills happen while a checkpoint is written, a third in the first minute including
startup, and a third shortly after a step. In the end both runs must have the same weights, the same buffer and used
demonstrations, and the same metrics in every step that both have logged. After an interruption, the same command
continues.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from verl_relift.testing.launch import differences, finish, kill, records, start, weights

KINDS = ("while saving", "in the first minute", "after a step")


def prepare(folder: Path) -> list[str]:
    """Make the data and base model of the small task if they do not exist, and return the overrides that use them."""
    if not (folder / "base" / "config.json").exists():
        for arguments in (
            ["data_preprocess.arithmetic", "--output", f"{folder}/data"],
            ["verl_relift.quickstart.base_model", "--data", f"{folder}/data", "--output", f"{folder}/base"],
        ):
            subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL)
    return [
        f"data.train_files={folder}/data/train.parquet",
        f"data.val_files={folder}/data/test.parquet",
        f"actor_rollout_ref.model.path={folder}/base",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "method.sft.batch_size=4",
        "trainer.save_freq=1",
        "trainer.max_actor_ckpt_to_keep=2",
        "trainer.resume_mode=auto",
    ]


def instant(kind: str, run: Path, rng: random.Random) -> Callable[[], bool]:
    """Return a function that tells whether the random instant to kill at has come.

    Args:
        kind: one of `KINDS`.
        run: folder of the run.
        rng: source of randomness.
    """
    begin, logged = time.monotonic(), len(records(run))
    delay = {"while saving": rng.uniform(0.0, 0.5), "in the first minute": rng.uniform(0.0, 60.0)}.get(
        kind, rng.uniform(0.0, 4.0)
    )
    reached: float | None = begin if kind == "in the first minute" else None

    def come() -> bool:
        nonlocal reached
        if reached is None:
            saving = kind == "while saving" and any(run.glob("global_step_*.partial")) and len(records(run)) > logged
            if saving or (kind == "after a step" and len(records(run)) > logged):
                reached = time.monotonic()
        return reached is not None and time.monotonic() - reached >= delay

    return come


def kill_at_random(run: Path, overrides: list[str], kills: int, log: Path, rng: random.Random) -> None:
    """Start and kill a run until it has been killed `kills` times.

    Args:
        run: folder of the run.
        overrides: key=value arguments of training.
        kills: number of kills, including those in `log`.
        log: JSON lines, one per kill.
        rng: source of randomness.

    Raises:
        SystemExit: the run ended by itself.
    """
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for number in range(len(done), kills):
        kind = KINDS[number % len(KINDS)]
        began = time.time()
        process = start("quickstart", run, *overrides)
        come = instant(kind, run, rng)
        while not come():
            if process.poll() is not None:
                raise SystemExit(
                    f"the run exited by itself with status {process.returncode}; increase --steps, or see its log"
                )
            time.sleep(0.01)
        # An earlier kill may have left a folder, too.
        saving = any(folder.stat().st_mtime > began for folder in run.glob("global_step_*.partial"))
        kill(process)
        tracker = run / "latest_checkpointed_iteration.txt"
        entry = {
            "kill": number + 1,
            "kind": kind,
            "saving": saving,
            "step": len(records(run)),
            "checkpoint": int(tracker.read_text()) if tracker.exists() else 0,
        }
        with open(log, "a") as file:
            file.write(json.dumps(entry) + "\n")
        print(entry, flush=True)


def main() -> int:
    """Run the command.

    Returns:
        The exit status: 0 if both runs agree, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60, help="steps of the run, enough that no start reaches the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    overrides = [
        *prepare(options.output / "task"), f"trainer.total_training_steps={options.steps}", *options.overrides
    ]  # fmt: skip
    whole, broken = options.output / "whole", options.output / "broken"
    if len(records(whole)) < options.steps:
        finish(start("quickstart", whole, *overrides), whole, seconds=7200)
    kill_at_random(broken, overrides, options.kills, options.output / "kills.jsonl", random.Random(options.seed))
    finish(start("quickstart", broken, *overrides), broken, seconds=7200)

    expected = {record["step"]: record for record in records(whole)}
    made = {record["step"]: record for record in records(broken)}
    both = sorted(expected.keys() & made.keys())
    different = differences([made[step] for step in both], [expected[step] for step in both])
    state = [(run / f"global_step_{options.steps}/relift/state.json").read_text() for run in (whole, broken)]
    entries = [json.loads(line) for line in (options.output / "kills.jsonl").read_text().splitlines()]
    result = {
        "kills": len(entries),
        "while_saving": sum(entry["saving"] for entry in entries),
        "steps": options.steps,
        "steps_logged_by_both": len(both),
        "metrics_that_differ": different,
        "same_weights": weights(whole, options.steps) == weights(broken, options.steps),
        "same_buffer_and_used_demonstrations": state[0] == state[1],
    }
    print(json.dumps(result, indent=2))
    return 0 if not different and result["same_weights"] and result["same_buffer_and_used_demonstrations"] else 1


if __name__ == "__main__":
    sys.exit(main())
