"""`plan --trace` of every launch script: `python -m benchmarks.engine.launches [--layers N] [--output FILE.md]`.

Each script is asked which training command it gives, and that command is planned and traced for GPUs, on a CPU and
without the model's weights. The table has the time and the memory that this takes, and the peaks as planned and traced.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import machine
from benchmarks.report import Report
from verl_relift.plan.shapes import BUILT_IN, to_config

ROOT = Path(__file__).parents[2]
MODELS = {
    "qwen2.5-math-1.5b": "Qwen/Qwen2.5-Math-1.5B",
    "qwen2.5-math-7b": "Qwen/Qwen2.5-Math-7B",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
}
POSITIONS = 16384  # of the copies that data_preprocess.prepare_model makes for these scripts
UPDATES = ("RL update", "supervised update")
GIB = 1 << 30
MOST_SECONDS, MOST_BYTES = 90, 4 * GIB  # of one launch, on two cores


@dataclass(frozen=True)
class Launch:
    """A launch script with its model.

    Attributes:
        script: path in the repository.
        model: a key of `MODELS`.
        layers: number of layers; None: the model's.
    """

    script: str
    model: str
    layers: int | None = None

    def __str__(self) -> str:
        return f"{Path(self.script).parent.name}-{self.model}"

    def arguments(self, folder: Path) -> list[str]:
        """Return the arguments that the script gives to `verl_relift.train`.

        Args:
            folder: gets the model's `config.json`, and a stand-in for Python.
        """
        config = to_config(BUILT_IN[MODELS[self.model]])
        config["max_position_embeddings"] = POSITIONS
        config["num_hidden_layers"] = self.layers or config["num_hidden_layers"]
        (folder / "config.json").write_text(json.dumps(config))
        python = folder / "python"
        python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
        python.chmod(0o755)
        environment = {**os.environ, "PYTHON": str(python), "MODEL": self.model, "MODEL_PATH": str(folder)}
        shown = subprocess.run([ROOT / self.script], env=environment, capture_output=True, text=True)
        if shown.returncode:
            raise RuntimeError(f"{self.script}: {shown.stderr}")
        option, module, *arguments = shown.stdout.splitlines()
        if (option, module) != ("-m", "verl_relift.train"):
            raise RuntimeError(f"{self.script} starts {option} {module}, not -m verl_relift.train")
        return arguments


def launches(layers: int | None = None) -> list[Launch]:
    """Return every launch script: those of the examples each with its model, those of the recipes with the smallest."""
    examples = [Launch(f"examples/run_{model}_megatron.sh", model, layers) for model in MODELS]
    recipes = sorted(path.parent.name for path in ROOT.glob("recipe/*/run.sh"))
    # Every script in examples/ is recipe/relift's.
    return examples + [
        Launch(f"recipe/{name}/run.sh", "qwen2.5-math-1.5b", layers) for name in recipes if name != "relift"
    ]


def plan(arguments: Sequence[str]) -> list[str]:
    """Return the command that plans and traces a training command for an H200."""
    return [sys.executable, "-m", "verl_relift.plan", "--trace", "--json", "--gpu", "h200", *arguments]


def traces(answer: str) -> list[dict[str, Any]]:
    """Return the traced ranks of all stages of a run from what `plan` has printed."""
    plans = json.loads(answer)
    plans = [plans] if "trace" in plans else list(plans.values())
    return [rank for one in plans for rank in one["trace"]]


def differences(rank: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the peaks of a rank's updates as planned and as traced, in bytes."""
    return {
        phase: (sum(rank["planned"][phase].values()), rank["phases"][phase]["device"]["total"])
        for phase in UPDATES
        if phase in rank["phases"]
    }


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
