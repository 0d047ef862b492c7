"""Every launch script builds the real engine and makes a step with it, on tensors without memory (`plan --trace`).

The models have their real widths and few layers; all settings are those of the scripts.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from verl_relift.plan.shapes import BUILT_IN, to_config

ROOT = Path(__file__).parents[2]
MODELS = {
    "qwen2.5-math-1.5b": "Qwen/Qwen2.5-Math-1.5B",
    "qwen2.5-math-7b": "Qwen/Qwen2.5-Math-7B",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
}
GIB = 1 << 30
LIMIT = 0.03  # of the trace; the arithmetic is that close with all layers, too (benchmarks/engine/plan_trace.py)


@dataclass(frozen=True)
class Launch:
    """A launch script with its model.

    Attributes:
        script: path in the repository.
        model: a key of `MODELS`.
        layers: number of layers; None: all.
        overrides: further arguments.
    """

    script: str
    model: str
    layers: int | None = 2
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{Path(self.script).parent.name}-{self.model}"

    def arguments(self, folder: Path) -> list[str]:
        """Return the arguments that the script gives to `verl_relift.train`."""
        config = to_config(BUILT_IN[MODELS[self.model]])
        (folder / "config.json").write_text(
            json.dumps(config | {"num_hidden_layers": self.layers or config["num_hidden_layers"]})
        )
        python = folder / "python"
        python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
        python.chmod(0o755)
        environment = {**os.environ, "PYTHON": str(python), "MODEL": self.model, "MODEL_PATH": str(folder)}
        shown = subprocess.run([ROOT / self.script, *self.overrides], env=environment, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        option, module, *arguments = shown.stdout.splitlines()
        assert (option, module) == ("-m", "verl_relift.train")
        return arguments


def plan(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "verl_relift.plan", "--trace", "--gpu", "h200", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)


def traces(answer: subprocess.CompletedProcess) -> list[dict]:
    """The traced ranks, of all stages of the run."""
    assert answer.returncode in (0, 1), answer.stdout[-2000:] + answer.stderr[-4000:]
    plans = json.loads(answer.stdout)
    plans = [plans] if "trace" in plans else list(plans.values())
    return [rank for one in plans for rank in one["trace"]]


def agree(rank: dict) -> None:
    """The arithmetic has the traced bytes of weights, gradients and optimizers, and nearly those of each update."""
    for phase in {"RL update", "supervised update"} & rank["phases"].keys():
        traced, planned = rank["phases"][phase]["device"], rank["planned"][phase]
        assert sum(planned.values()) == pytest.approx(traced["total"], rel=LIMIT), phase
        for part in ("weights", "gradients", "optimizer", "second optimizer"):
            assert planned.get(part, 0) == pytest.approx(traced["parts"].get(part, 0), rel=1e-3, abs=1 << 20), part


EXAMPLES = [Launch(f"examples/run_{model}_megatron.sh", model) for model in MODELS]
RECIPES = [
    Launch("recipe/relift_splice/run.sh", "qwen2.5-math-1.5b"),
    Launch("recipe/grpo/run.sh", "qwen2.5-math-1.5b"),
]
SLOW_RECIPES = [
    Launch("recipe/sft/run.sh", "qwen2.5-math-1.5b"),
    Launch("recipe/sft_then_rl/run.sh", "qwen2.5-math-1.5b"),
    Launch("recipe/rl_with_sft_loss/run.sh", "qwen2.5-math-1.5b"),
    Launch("recipe/relift_authors/run.sh", "qwen2.5-math-1.5b"),
]


def test_every_launch_script_is_here():
    scripts = {str(path.relative_to(ROOT)) for path in (*ROOT.glob("examples/run_*.sh"), *ROOT.glob("recipe/*/run.sh"))}
    here = {launch.script for launch in (*EXAMPLES, *RECIPES, *SLOW_RECIPES)}
    assert scripts == here | {"recipe/relift/run.sh"}  # which every script in examples/ is


@pytest.fixture(scope="module")
def answers(request, tmp_path_factory):
    """What `plan --trace` answers to the launches that are tested. Two at a time: each takes one core."""
    launches = [item.callspec.params["launch"] for item in request.session.items if "answers" in item.fixturenames]
    with ThreadPoolExecutor(2) as pool:
        yield {one: pool.submit(_answer, one, tmp_path_factory.mktemp(str(one))) for one in launches}


def _answer(launch: Launch, folder: Path) -> subprocess.CompletedProcess:
    return plan("--json", *launch.arguments(folder))


@pytest.mark.parametrize("launch", [*EXAMPLES, *RECIPES], ids=str)
def test_a_launch_script_builds_and_makes_a_step(launch, answers):
    for rank in traces(answers[launch].result()):
        agree(rank)


@pytest.mark.slow
@pytest.mark.parametrize("launch", SLOW_RECIPES, ids=str)
def test_the_other_recipes_build_and_make_a_step(launch, tmp_path):
    for rank in traces(plan("--json", *launch.arguments(tmp_path))):
        agree(rank)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_launch_script_in_full_size(model, tmp_path):
    launch = Launch(f"examples/run_{model}_megatron.sh", model, layers=None)
    for rank in traces(plan("--json", *launch.arguments(tmp_path))):
        agree(rank)
        assert rank["process"] < 4 * GIB


@pytest.mark.slow
def test_an_engine_that_does_not_build_ends_with_one_line_and_2(tmp_path):
    arguments = EXAMPLES[0].arguments(tmp_path)
    unknown = "+actor_rollout_ref.actor.megatron.override_transformer_config.no_such_field=1"
    answer = plan(*arguments, unknown)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert line.startswith("the training engine does not build: TypeError: ")
    assert "no_such_field" in line
    assert "mbridge" in line
