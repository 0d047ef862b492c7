"""What keeping strangers out costs: `python -m benchmarks.engine.protection [--output FILE.md] [--only PART ...]`.

Each part has two sides that take turns: one as it is, the other without TransferQueue's keys, with pickle in the place
of JSON and without asking for the peer's user on the weights' socket, with torch's own store, and without Ray's token
(`unprotected/sitecustomize.py`). `queue` moves a step's rollouts, `sync` a model's weights to vLLM, and `step` trains:
each turn is a run of its own, of which the first steps are left out.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.engine.batch import SHAPES, save_model
from benchmarks.machine import machine
from benchmarks.report import Report, Spread
from benchmarks.sides import Side
from verl_relift.run import private
from verl_relift.testing.launch import finish, start

BAR = 1.02
ROOT = Path(__file__).parents[2]
GSM8K = ROOT / "tests" / "data" / "gsm8k"
UNPROTECTED = {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "unprotected"), str(ROOT)]),
    "RAY_AUTH_MODE": "disabled",
}
SIDES: Mapping[str, Mapping[str, str]] = {"as it is": {}, "unprotected": UNPROTECTED}
TURNS = {"queue": 15, "sync": 21, "step": 6}
ROLLOUTS = 512
BUCKET_MEGABYTES = 64
STEPS, FIRST = 24, 4  # of a run, and those that are left out


def take_turns(sides: Mapping[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """Let the sides take turns, each first in every other one, and return their seconds without the warm-up's."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        for name in sorted(sides, reverse=bool(turn % 2)):
            seconds[name].append(sides[name]())
    return {name: found[1:] for name, found in seconds.items()}


def queue(folder: Path, turns: int) -> dict[str, list[float]]:
    """Write and read a step's rollouts through TransferQueue."""
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Side("benchmarks.engine.transfer_worker", "packed", variables=variables))
            for name, variables in SIDES.items()
        }
        return take_turns(
            {name: lambda w=worker: w.ask("step", rows=ROLLOUTS)[0]["seconds"] for name, worker in workers.items()},
            turns,
        )


def sync(folder: Path, turns: int) -> dict[str, list[float]]:
    """Send a model's weights from the training engine to vLLM."""
    save_model(SHAPES["20M"], folder / "model")
    sockets = private.create("rl-colocate-zmq-")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, sockets)
        sides = {}
        for number, (name, variables) in enumerate(SIDES.items()):
            # Where verl's worker extension looks.
            job = f"{sockets.name.removeprefix('rl-colocate-zmq-')}/{number}"
            handle = f"ipc://{sockets.parent}/rl-colocate-zmq-{job}-replica-0-rank-0.sock"
            model = str(folder / "model")
            sender = stack.enter_context(Side("benchmarks.engine.worker", model, "1", "false", variables=variables))
            receiver = stack.enter_context(Side("benchmarks.engine.weight_receiver", model, job, variables=variables))
            sides[name] = lambda s=sender, r=receiver, h=handle: _synchronize(s, r, h)
        return take_turns(sides, turns)


def _synchronize(sender: Side, receiver: Side, handle: str) -> float:
    receiver.send("receive")
    sender.send("send_weights", handle=handle, bucket_megabytes=BUCKET_MEGABYTES)
    (sent,), (received,) = sender.receive(), receiver.receive()
    return max(sent["ended"], received["ended"]) - min(sent["began"], received["began"])


def step(folder: Path, turns: int) -> dict[str, list[float]]:
    """Train: the median of a run's steps."""
    data = _prepare(folder)
    runs = iter(range(1000))

    def train(variables: Mapping[str, str]) -> float:
        run = folder / f"run-{next(runs)}"
        overrides = (f"trainer.total_training_steps={STEPS}", f"trainer.save_freq={STEPS}", "trainer.test_freq=-1")
        process = start("smoke", run, *data, *overrides, variables=variables)
        return statistics.median(record["timing_s/step"] for record in finish(process, run)[FIRST:])

    return take_turns({name: lambda v=variables: train(v) for name, variables in SIDES.items()}, turns)


def _prepare(folder: Path) -> list[str]:
    """Make data and a random model; return the overrides that name them."""
    for arguments in (
        ["data_preprocess.gsm8k", "--input", str(GSM8K), "--output", str(folder / "data"), "--template", "think"],
        ["verl_relift.quickstart.random_model", "--output", str(folder / "model")],
    ):
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True, cwd=ROOT)
    return [
        f"data.train_files={folder}/data/train.parquet",
        f"data.val_files={folder}/data/test.parquet",
        f"actor_rollout_ref.model.path={folder}/model",
    ]


PARTS = {"queue": queue, "sync": sync, "step": step}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also write the report to this Markdown file")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="by default all")
    parser.add_argument("--turns", type=int, help="turns of each part; by default as many as each needs")
    options = parser.parse_args()
    report, rows = Report(), []
    report.add(f"# The cost of keeping strangers out, {datetime.now(UTC):%Y-%m-%d}\n")
    packages = ", ".join(f"{name} {version(name)}" for name in ("verl", "TransferQueue", "ray", "torch"))
    report.add(f"{machine()}; {packages}. Command: `python -m benchmarks.engine.protection`\n")
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            seconds = PARTS[name](Path(folder), options.turns or TURNS[name])
        ours, theirs = seconds["as it is"], seconds["unprotected"]
        ratio = statistics.median(ours) / statistics.median(theirs)
        turns = Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])
        medians = (f"{statistics.median(side):.4f}" for side in (ours, theirs))
        rows.append((name, len(ours), *medians, f"{ratio:.3f}", turns.text(3), f"<= {BAR}"))
        print(*rows[-1], flush=True)
    report.add("Medians of the turns after a warm-up turn, in seconds.\n")
    report.table(("part", "turns", "as it is", "unprotected", "ratio of medians", "ratio by turn", "bar"), rows)
    if options.output:
        options.output.write_text("\n".join(report.lines).rstrip() + "\n")
    return 0 if all(float(row[4]) <= BAR for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
