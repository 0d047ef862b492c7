"""What each recipe's scripts ask of the trainer."""

import os
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from verl_relift import train  # noqa: F401  registers the configuration's resolver
from verl_relift.checks import batch_problems, settings_problems
from verl_relift.settings import ReLIFTSettings, Schedule, Select, SFTMode

ROOT = Path(__file__).parents[2]
RECIPES = ("relift", "grpo", "sft", "rl_with_sft_loss")
MODELS = ("qwen2.5-math-1.5b", "qwen2.5-math-7b", "qwen2.5-7b", "llama-3.1-8b")

# Stands in for python: writes down its arguments, and leaves the checkpoint that training would have made.
PYTHON = """#!/usr/bin/env bash
printf '%s\\0' "$@" >>"$(dirname "$0")/arguments"
printf '\\n' >>"$(dirname "$0")/arguments"
for argument in "$@"; do
    if [[ $argument == trainer.default_local_dir=* ]]; then
        mkdir -p "${argument#*=}/global_step_12"
        echo 12 >"${argument#*=}/latest_checkpointed_iteration.txt"
    fi
done
"""


def calls(script: Path, folder: Path, *arguments: str, **variables: str) -> list[list[str]]:
    """The arguments of every training command that ``script`` runs."""
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "OUTPUT": str(folder / "run"), **variables}
    subprocess.run([script, *arguments], check=True, cwd=folder, env=environment)
    lines = (folder / "arguments").read_text().splitlines()
    return [line.split("\0")[2:-1] for line in lines]  # without -m and the module


def configuration(arguments: list[str]):
    with initialize_config_module("verl_relift.config", version_base=None):
        config = compose(
            "relift", overrides=["hydra.searchpath=[pkg://verl.trainer.config]", "platform=cuda", *arguments]
        )
    assert [*settings_problems(config), *batch_problems(config)] == []
    return config, ReLIFTSettings.from_mapping(OmegaConf.to_container(config.relift, resolve=True))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_what_its_name_says(recipe, model, tmp_path):
    (arguments,) = calls(ROOT / "recipe" / recipe / f"run_{model}_megatron.sh", tmp_path, "trainer.save_freq=7")
    config, settings = configuration(arguments)
    assert config.trainer.save_freq == 7
    assert config.actor_rollout_ref.rollout.n == 8
    assert settings.enable == (recipe != "grpo")
    assert settings.supervised_only == (recipe == "sft")
    assert settings.trigger.select is (Select.HARDEST if recipe in ("relift", "grpo") else Select.ALL)
    if recipe == "rl_with_sft_loss":
        assert settings.sft.mode is SFTMode.SPLICE and settings.schedule.kind is Schedule.ALWAYS
        assert settings.sft.batch_size == config.data.train_batch_size == 128
    else:
        assert settings.sft.mode is SFTMode.INTERLEAVE
    assert settings.sft.lr == (1e-5 if recipe == "sft" else 1e-6)


@pytest.mark.parametrize("then", ["grpo", "relift"])
@pytest.mark.parametrize("model", MODELS)
def test_the_second_stage_begins_where_the_first_ended(model, then, tmp_path):
    script = ROOT / "recipe" / "sft_then_rl" / f"run_{model}_megatron.sh"
    first, second = calls(script, tmp_path, "data.seed=5", THEN=then, RL_OVERRIDES="trainer.save_freq=9")
    (sft, sft_settings), (rl, rl_settings) = configuration(first), configuration(second)
    assert sft_settings.supervised_only and not rl_settings.supervised_only
    assert rl_settings.enable == (then == "relift")
    assert sft.data.seed == rl.data.seed == 5
    assert sft_settings.sft.lr == 1e-5 and rl.trainer.save_freq == 9 != sft.trainer.save_freq
    assert (
        sft.trainer.default_local_dir == f"{tmp_path}/run/sft" and rl.trainer.default_local_dir == f"{tmp_path}/run/rl"
    )
    assert rl.actor_rollout_ref.model.path == f"{tmp_path}/run/sft/global_step_12/actor/model/huggingface"
