"""The launch scripts of `examples/` and `recipe/`, and what `plan --trace` says of the commands that they give."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plan.shapes import BUILT_IN, to_config

ROOT = Path(__file__).parents[2]
MODELS = {
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen2.5-math-1.5b": "Qwen/Qwen2.5-Math-1.5B",
    "qwen2.5-math-7b": "Qwen/Qwen2.5-Math-7B",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
}
ONE_GPU = {"qwen2.5-0.5b": "24", "qwen2.5-1.5b": "80"}  # GPU_MEMORY
POSITIONS = 16384  # of the copies that data_preprocess.prepare_model makes for these scripts
UPDATES = ("RL update", "supervised update")


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
        environment["GPU_MEMORY"] = ONE_GPU.get(self.model, "")
        shown = subprocess.run([ROOT / self.script], env=environment, capture_output=True, text=True)
        if shown.returncode:
            raise RuntimeError(f"{self.script}: {shown.stderr}")
        option, module, *arguments = shown.stdout.splitlines()
        if (option, module) != ("-m", "verl_relift.train"):
            raise RuntimeError(f"{self.script} starts {option} {module}, not -m verl_relift.train")
        return arguments


def launches(layers: int | None = None) -> list[Launch]:
    """Return every launch script: those of the examples each with its model, those of the recipes with the smallest.

    Args:
        layers: of the models for several GPUs; None: their own.
    """
    scripts = {model: "one_gpu" if model in ONE_GPU else f"{model}_megatron" for model in MODELS}
    # On one GPU a block of logits is some percent of the peak of few layers, so those models are whole.
    depths = {model: None if model in ONE_GPU else layers for model in MODELS}
    examples = [Launch(f"examples/run_{script}.sh", model, depths[model]) for model, script in scripts.items()]
    recipes = sorted(path.parent.name for path in ROOT.glob("recipe/*/run.sh"))
    # Every script in examples/ runs recipe/relift's.
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
