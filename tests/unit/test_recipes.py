"""What `recipe/<method>/run.sh` asks of the trainer, for every method and every model."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from verl_relift import checks
from verl_relift.run.composition import Arguments
from verl_relift.stages import stage_arguments

ROOT = Path(__file__).parents[2]
METHODS = sorted(path.parent.name for path in ROOT.glob("recipe/*/run.sh"))
KNOWN_MODELS = sorted(path.stem for path in ROOT.glob("examples/models/*.sh"))
# Those for 8 GPUs; tests/unit/test_readme_plan.py has those of examples/run_one_gpu.sh.
MODELS = [model for model in KNOWN_MODELS if (ROOT / f"examples/run_{model}_megatron.sh").exists()]
CASES = [(method, model) for method in METHODS for model in MODELS]

# Stands in for python: writes down its arguments.
PYTHON = """#!/usr/bin/env bash
printf '%s\\0' "$@" >"$(dirname "$0")/arguments"
"""


def run(script: Path, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run `script` from another folder, with a stand-in for python."""
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), **variables}
    return subprocess.run([script, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def arguments_of(script: Path, folder: Path, *arguments: str, **variables: str) -> list[str]:
    """The arguments that `script` passes to `verl_relift.train`."""
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
    assert all(model in line for model in KNOWN_MODELS)


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
    assert not re.search(r"method\.|SFT_|relift\.", common.replace('"verl_relift.$program"', ""))


@pytest.mark.parametrize("method", METHODS)
def test_with_plan_the_same_run_is_planned(method, tmp_path):
    """`--plan` stands anywhere among the arguments; what else is given is the same."""
    variables = {"MODEL": MODELS[0], "NODES": "2"}
    trained = arguments_of(run_script(method), tmp_path, "trainer.save_freq=7", **variables)
    result = run(run_script(method), tmp_path, "--gpu", "H100", "--plan", "trainer.save_freq=7", **variables)
    assert result.returncode == 0, result.stderr
    option, module, *planned = (tmp_path / "arguments").read_text().split("\0")[:-1]
    assert (option, module) == ("-m", "verl_relift.plan")
    # The model's folder is not there yet.
    place = planned.index("--prepare")
    command = planned[place + 1]
    del planned[place : place + 2]
    assert planned[-3:] == ["--gpu", "H100", "trainer.save_freq=7"] and "--prepare" not in planned[place:]
    assert [*planned[:-3], "trainer.save_freq=7"] == trained
    assert command.startswith("python -m data_preprocess.prepare_model --model ")


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        ("recipe/relift/run.sh", {"MODEL": "qwen2.5-math-7b", "NODES": "2"}),
        ("recipe/relift/run.sh", {"MODEL": "qwen2.5-7b", "MODEL_PATH": "Qwen/Qwen2.5-7B"}),
        ("examples/run_one_gpu.sh", {"GPU_MEMORY": "80", "MODEL": "qwen2.5-1.5b", "METHOD": "grpo"}),
    ],
)
def test_a_launch_script_plans_its_run(script, variables):
    environment = {**os.environ, "PYTHON": sys.executable, "HF_HUB_OFFLINE": "1", **variables}
    planned = subprocess.run(
        [ROOT / script, "--plan", "--gpu", "H100"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert planned.stdout.splitlines()[-1] == "fits" and "NVIDIA H100" in planned.stdout
    [seconds] = re.findall(r"^\W*sum\W+([\d.]+)\W*$", planned.stdout, re.MULTILINE)
    assert float(seconds) > 1


def documented_plans() -> list[str]:
    """The lines of the documents that plan with a launch script."""
    text = "\n".join((ROOT / page).read_text() for page in ("README.md", "docs/slurm.md", "docs/scale.md"))
    return sorted(set(re.findall(r"^(?:.*`)?((?:[A-Z_]+=\S+ )+\S+run\w*\.sh --plan --gpu \w+)", text, re.MULTILINE)))


@pytest.mark.parametrize("command", documented_plans())
def test_the_documented_commands_plan_on_a_fresh_clone(command, tmp_path):
    """There is neither a network nor a folder of models."""
    variables, script = command.rsplit(" --plan", 1)[0].rsplit(" ", 1)
    # The scripts go to the folder that they are in.
    copied = tmp_path / "clone"
    for file in (*ROOT.glob("recipe/relift/run.sh"), *ROOT.glob("examples/*.sh"), *ROOT.glob("examples/models/*.sh")):
        there = copied / file.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, there)
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    environment |= dict(variable.split("=", 1) for variable in variables.split())
    options = shlex.split(command.rsplit(script, 1)[1])
    planned = subprocess.run([copied / script, *options], env=environment, capture_output=True, text=True, timeout=120)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert planned.stdout.splitlines()[-1] == "fits"


def test_a_folder_that_is_not_there_yet_is_planned_as_the_copy_that_will_be(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "HF_HUB_OFFLINE": "1", "MODEL": "qwen2.5-math-7b"}
    environment["MODEL_PATH"] = "models/not-made-yet"
    planned = subprocess.run(
        [run_script("relift"), "--plan", "--gpu", "h100", "--json"], env=environment, capture_output=True, text=True
    )
    model = json.loads(planned.stdout)["model"]
    assert (model["parameters"], model["positions"]) == (7_615_616_512, 16384)
    assert model["source"] == (
        "built-in shape of Qwen/Qwen2.5-Math-7B: its config.json could not be fetched; 16384 positions"
    )
    made = "models/not-made-yet is not there yet; planned as what prepare_model makes of "
    assert json.loads(planned.stdout)["notes"][0].startswith(made)


def configurations(overrides: list[str], platform: str = "cuda") -> list[DictConfig]:
    """Compose what `verl_relift.train` gets, once per stage; an override of a key that no file has is an error."""
    arguments = Arguments(overrides=tuple(overrides))
    whole = arguments.compose(platform)
    return [stage.compose(platform) for _, stage in stage_arguments(arguments, whole)] or [whole]


# Attention heads, key-value heads, feed-forward size, vocabulary, layers, from the models' published config.json.
SHAPES = {
    "qwen2.5-math-1.5b": (12, 2, 8960, 151936, 28),
    "qwen2.5-math-7b": (28, 4, 18944, 152064, 28),
    "qwen2.5-7b": (28, 4, 18944, 152064, 28),
    "llama-3.1-8b": (32, 8, 14336, 128256, 32),
}


@pytest.mark.parametrize(("method", "model"), CASES)
def test_the_configuration_has_no_problem_on_one_node_or_more(method, model, tmp_path):
    heads, groups, feed_forward, vocabulary, layers = SHAPES[model]
    hf = SimpleNamespace(
        num_attention_heads=heads,
        num_key_value_heads=groups,
        intermediate_size=feed_forward,
        vocab_size=vocabulary,
        num_hidden_layers=layers,
    )
    for config in configurations(arguments_of(run_script(method), tmp_path, MODEL=model)):
        assert list(checks.settings_problems(config)) == []
        for config.trainer.nnodes in (1, 2, 8):
            assert [*checks.batch_problems(config), *checks.divisibility_problems(config, hf)] == []


@pytest.mark.parametrize("method", METHODS)
def test_the_keys_exist_on_a_cpu_too(method, tmp_path):
    overrides = arguments_of(run_script(method), tmp_path, MODEL=MODELS[0], STEPS="3")
    for config in configurations(overrides, "cpu"):
        assert config.trainer.n_gpus_per_node == 8
        assert config.data.train_files == ["data/openr1/train.parquet"]
        assert list(checks.settings_problems(config)) == []


def settings_of(method: str, folder: Path, **variables: str) -> DictConfig:
    [config] = configurations(arguments_of(run_script(method), folder, MODEL="qwen2.5-math-7b", **variables))
    return config.method


def test_relift_has_the_papers_values(tmp_path):
    settings = settings_of("relift", tmp_path)
    assert (settings.sft.batch_size, settings.sft.lr, settings.trigger.max_accuracy) == (64, 1e-6, 0.0)


def test_the_authors_values_are_the_ones_that_their_scripts_have(tmp_path):
    """And the two methods agree in everything else."""
    authors, own = (
        OmegaConf.to_container(
            configurations(arguments_of(run_script(method), tmp_path, MODEL="qwen2.5-math-7b"))[0], resolve=True
        )
        for method in ("relift_authors", "relift")
    )
    for config in (authors, own):
        # Names and folders of the run, and what is not used.
        config["trainer"] = config["trainer"]["total_training_steps"]
        del config["actor_rollout_ref"]["rollout"]["trace"], config["critic"]
    assert differences(authors, own) == {
        "method.name": ("relift_authors", "relift"),
        "method.sft.batch_size": (128, 64),
        "method.sft.entropy_coeff": (1e-3, 1e-4),
        "method.sft.optimizer": ("separate", "shared"),
        "method.buffer.order": ("lifo", "fifo"),
        "actor_rollout_ref.actor.clip_ratio_low": (1.0, 0.2),
        "actor_rollout_ref.actor.clip_ratio_high": (1e9, 0.2),
        "actor_rollout_ref.actor.clip_ratio_c": (1e9, 3.0),
        "actor_rollout_ref.actor.loss_agg_mode": ("seq-mean-token-sum-norm", "token-mean"),
        "actor_rollout_ref.actor.loss_scale_factor": (8192, None),
    }
    assert authors["data"]["train_batch_size"] == 128 and authors["data"]["max_response_length"] == 8192
    actor, rollout = authors["actor_rollout_ref"]["actor"], authors["actor_rollout_ref"]["rollout"]
    assert (actor["ppo_mini_batch_size"], actor["optim"]["lr"], actor["optim"]["clip_grad"]) == (64, 1e-6, 0.7)
    assert (actor["entropy_coeff"], actor["use_kl_loss"]) == (1e-3, False)
    assert (rollout["n"], rollout["temperature"], rollout["val_kwargs"]["temperature"]) == (8, 1.0, 0.6)
    sft = authors["method"]["sft"]
    assert (sft["lr"], sft["clip_grad"], sft["epochs"], sft["lr_schedule"]) == (1e-6, 1.0, 1, "constant")
    assert not authors["algorithm"]["norm_adv_by_std_in_grpo"] and authors["trainer"] == 500


def differences(one: Any, other: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the leaves in which two configurations differ, by key."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), path
        return {k: v for name in one for k, v in differences(one[name], other[name], f"{path}.{name}").items()}
    return {} if one == other else {path.removeprefix("."): (one, other)}


def test_the_variables_of_a_method_reach_its_settings(tmp_path):
    assert settings_of("relift", tmp_path, SFT_BATCH_SIZE="32", SFT_LR="3e-6").sft.batch_size == 32
    assert settings_of("relift_splice", tmp_path, SFT_WEIGHT="0.5").sft.weight == 0.5
    assert settings_of("rl_with_sft_loss", tmp_path, TRAIN_BATCH_SIZE="64").sft.batch_size == 64


@pytest.mark.parametrize("then", ["grpo", "relift"])
def test_supervised_fine_tuning_then_rl_has_two_stages(then, tmp_path):
    more = "method.then.overrides=['trainer.save_freq=9']"
    arguments = arguments_of(run_script("sft_then_rl"), tmp_path, "data.seed=5", more, MODEL=MODELS[0], THEN=then)
    first, second = configurations(arguments)
    assert (first.method.name, second.method.name) == ("sft", then)
    assert first.data.seed == second.data.seed == 5
    assert Path(first.trainer.default_local_dir).parent == Path(second.trainer.default_local_dir).parent
    assert (first.method.sft.lr, first.method.sft.batch_size, first.trainer.total_training_steps) == (1e-5, 128, 1080)
    assert second.trainer.total_training_steps == 500
    assert (first.trainer.save_freq, second.trainer.save_freq) == (50, 9)


def test_the_first_stage_may_spend_what_another_run_has_spent(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"relift/sft_demonstrations": 1280, "relift/sft_tokens": 1000000}\n')
    passed = arguments_of(run_script("sft_then_rl"), tmp_path, MODEL=MODELS[0], MATCH=str(tmp_path), BY="tokens")
    config = Arguments.parse(passed).compose("cuda")
    first = config.method.first
    assert (first.match, first.by) == (str(tmp_path), "tokens")
    assert not [override for override in first.overrides if override.startswith("trainer.total_training_steps")]
    assert list(checks.settings_problems(config)) == []


@pytest.mark.parametrize(
    ("script", "argument", "line"),
    [
        ("recipe/relift/run.sh", "method=luffy", "this script is for method=relift; use recipe/luffy/run.sh"),
        ("recipe/grpo/run.sh", "method=relift", "this script is for method=grpo; use recipe/relift/run.sh"),
        ("recipe/sft_then_rl/run.sh", "method=sft", "this script is for method=sft_then_rl; use recipe/sft/run.sh"),
        ("recipe/relift/run.sh", "method=lufy", "there is no such method; recipe/README.md lists them"),
        ("examples/run_qwen2.5-7b_megatron.sh", "method=grpo", "use recipe/grpo/run.sh"),
    ],
)
def test_the_script_of_a_method_is_for_no_other(script, argument, line, tmp_path):
    refused = run(ROOT / script, tmp_path, "trainer.save_freq=5", argument, MODEL="qwen2.5-7b", MODEL_PATH="m")
    assert refused.returncode == 2 and refused.stderr.startswith(f"{argument}: ") and line in refused.stderr
    assert refused.stderr.count("\n") == 1 and not (tmp_path / "arguments").exists()


def test_the_script_of_a_method_may_be_told_its_own(tmp_path):
    passed = arguments_of(run_script("grpo"), tmp_path, "method=grpo", MODEL="qwen2.5-7b", MODEL_PATH="m")
    assert passed[-1] == "method=grpo"


@pytest.mark.parametrize("name", ["MAX_POSITIONS", "ROPE_THETA"])
def test_positions_of_a_model_that_is_not_prepared_are_rejected(name, tmp_path):
    result = run(run_script("relift"), tmp_path, **{"MODEL": "qwen2.5-7b", name: "32768"})
    assert result.returncode == 2 and result.stderr.startswith(f"{name}=32768: examples/models/qwen2.5-7b.sh prepares ")


def test_a_model_with_more_positions_is_planned_under_its_name(tmp_path):
    variables = {"MODEL": "qwen2.5-math-7b", "MAX_POSITIONS": "32768"}
    result = run(run_script("relift"), tmp_path, "--plan", "--prepare", "of my own", **variables)
    assert result.returncode == 0, result.stderr
    planned = (tmp_path / "arguments").read_text().split("\0")[:-1]
    assert "actor_rollout_ref.model.path=models/qwen2.5-math-7b-32k" in planned
    scripts, own = (planned[place + 1] for place, one in enumerate(planned) if one == "--prepare")
    assert "--max-positions 32768 " in scripts and own == "of my own"  # the last one counts
