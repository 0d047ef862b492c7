"""What ``recipe/<method>/run.sh`` asks of the trainer, for every method and every model."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
METHODS = sorted(path.parent.name for path in ROOT.glob("recipe/*/run.sh"))
MODELS = sorted(path.stem for path in ROOT.glob("examples/models/*.sh"))
CASES = [(method, model) for method in METHODS for model in MODELS]

# Stands in for python: writes down its arguments.
PYTHON = """#!/usr/bin/env bash
printf '%s\\0' "$@" >"$(dirname "$0")/arguments"
"""


def run(script: Path, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run ``script`` from another folder, with a stand-in for python."""
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), **variables}
    return subprocess.run([script, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def arguments_of(script: Path, folder: Path, *arguments: str, **variables: str) -> list[str]:
    """The arguments that ``script`` passes to ``verl_relift.train``."""
    result = run(script, folder, *arguments, **variables)
    assert result.returncode == 0, result.stderr
    option, module, *passed = (folder / "arguments").read_text().split("\0")[:-1]
    assert (option, module) == ("-m", "verl_relift.train")
    return passed


def values(arguments: list[str]) -> dict[str, str]:
    """The last value of every key."""
    return dict(argument.split("=", 1) for argument in arguments)


def run_script(method: str) -> Path:
    return ROOT / "recipe" / method / "run.sh"


@pytest.mark.parametrize(("method", "model"), CASES)
def test_a_run_is_named_after_its_method_and_model(method, model, tmp_path):
    given = values(arguments_of(run_script(method), tmp_path, "trainer.save_freq=7", MODEL=model))
    assert given["method"] == method
    assert given["trainer.experiment_name"] == f"{method}-{model}"
    assert given["trainer.default_local_dir"] == f"outputs/relift/{method}-{model}"
    assert given["actor_rollout_ref.model.path"].startswith(f"models/{model}")
    assert given["trainer.save_freq"] == "7"


@pytest.mark.parametrize("method", METHODS)
def test_variables_and_keys_from_outside_win(method, tmp_path):
    variables = {"MODEL": MODELS[0], "OUTPUT": "elsewhere", "NODES": "2", "ACTOR_TP": "1", "MODEL_PATH": "hub/model"}
    given = values(arguments_of(run_script(method), tmp_path, "actor_rollout_ref.rollout.n=3", **variables))
    assert given["trainer.default_local_dir"] == "elsewhere"
    assert given["trainer.nnodes"] == "2"
    assert given["actor_rollout_ref.actor.megatron.tensor_model_parallel_size"] == "1"
    assert given["actor_rollout_ref.model.path"] == "hub/model"
    assert given["actor_rollout_ref.rollout.n"] == "3"


@pytest.mark.parametrize("variables", [{"MODEL": "gpt2"}, {"MODEL": ""}])
@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_model_is_answered_with_the_known_ones(method, variables, tmp_path):
    result = run(run_script(method), tmp_path, **variables)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(f"MODEL={variables['MODEL']}: no such model")
    assert all(model in line for model in MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_that_is_not_there_comes_with_the_command_that_makes_it(model, tmp_path):
    stderr = run(run_script("relift"), tmp_path, MODEL=model, MODEL_PATH="models/not-made-yet").stderr
    assert re.search(r"models/not-made-yet does not exist yet; make it with: python -m data_preprocess\.\S+ ", stderr)
    assert stderr.rstrip().endswith("--output models/not-made-yet")


@pytest.mark.parametrize("model", MODELS)
def test_the_script_with_verls_name_runs_relift(model, tmp_path):
    convenience = arguments_of(ROOT / "examples" / f"run_{model}_megatron.sh", tmp_path, "trainer.save_freq=7")
    assert convenience == arguments_of(run_script("relift"), tmp_path, "trainer.save_freq=7", MODEL=model)


def test_only_the_recipes_scripts_know_the_methods():
    common = "".join(
        path.read_text() for path in [ROOT / "examples/train_megatron.sh", *ROOT.glob("examples/models/*")]
    )
    assert not re.search(r"method\.|SFT_|relift\.", common.replace("verl_relift.train", ""))
