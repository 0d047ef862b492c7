"""Shell scripts and Dockerfiles: linters find nothing, and the configuration that each run script asks for exists."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_module

from verl_relift import checks

ROOT = Path(__file__).parents[2]
NOT_SOURCE = {".git", ".venv", "outputs", "build", "data", "models"}
BIN = Path(sys.executable).parent


def source_files() -> list[Path]:
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if Path(folder) != ROOT or name not in NOT_SOURCE]
        found += [Path(folder) / name for name in files]
    return found


def is_shell(path: Path) -> bool:
    if path.suffix in (".sh", ".sbatch"):
        return True
    if path.suffix:
        return False
    with open(path, "rb") as file:
        return re.match(rb"#!.*\b(ba|da|)sh\b", file.readline(100)) is not None


SCRIPTS = sorted(filter(is_shell, source_files()))
RUN_SCRIPTS = sorted([*ROOT.glob("examples/run_*.sh"), *ROOT.glob("recipe/*/run_*.sh")])
DOCKERFILES = sorted(ROOT.glob("docker/Dockerfile*"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_shellcheck_finds_nothing(script):
    result = subprocess.run([BIN / "shellcheck", "--external-sources", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_scripts_stop_at_the_first_error(script):
    assert re.search(r"^set -euo pipefail$", script.read_text(), re.MULTILINE)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name)
def test_hadolint_finds_nothing(dockerfile):
    result = subprocess.run([BIN / "hadolint", dockerfile], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def arguments_of(script: Path, folder: Path, *given: str, **variables: str) -> list[str]:
    """What ``script`` passes to verl_relift.train."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >{folder}/arguments\n")
    python.chmod(0o755)
    subprocess.run([script, *given], check=True, cwd=folder, env={**os.environ, "PYTHON": str(python), **variables})
    module, *arguments = (folder / "arguments").read_text().split("\0")[1:-1]
    assert module == "verl_relift.train"
    return arguments


def configuration(overrides: list[str], platform: str):
    with initialize_config_module("verl_relift.config", version_base=None):
        return compose(
            "relift", overrides=["hydra.searchpath=[pkg://verl.trainer.config]", f"platform={platform}", *overrides]
        )


@pytest.mark.parametrize("script", [s for s in RUN_SCRIPTS if s.is_relative_to(ROOT / "examples")], ids=name)
@pytest.mark.parametrize("platform", ["cuda", "cpu"])
def test_every_key_of_a_run_script_exists(script, platform, tmp_path):
    # compose() refuses a key that is in no configuration file
    config = configuration(arguments_of(script, tmp_path, "trainer.save_freq=7", STEPS="3"), platform)
    assert config.trainer.save_freq == 7
    assert config.trainer.total_training_steps == 3
    assert config.trainer.n_gpus_per_node == 8
    assert config.data.train_files == ["data/openr1/train.parquet"]


# of the models' published config.json: attention heads, key-value heads, feed-forward size, vocabulary, layers
SHAPES = {
    "qwen2.5-math-1.5b": (12, 2, 8960, 151936, 28),
    "qwen2.5-math-7b": (28, 4, 18944, 152064, 28),
    "qwen2.5-7b": (28, 4, 18944, 152064, 28),
    "llama-3.1-8b": (32, 8, 14336, 128256, 32),
}


@pytest.mark.parametrize("model", SHAPES)
@pytest.mark.parametrize("nodes", [1, 2, 8])
def test_batches_and_model_can_be_divided(model, nodes, tmp_path):
    script = ROOT / "examples" / f"run_{model}_megatron.sh"
    config = configuration(arguments_of(script, tmp_path, NODES=str(nodes)), "cuda")
    heads, groups, feed_forward, vocabulary, layers = SHAPES[model]
    hf = SimpleNamespace(
        num_attention_heads=heads,
        num_key_value_heads=groups,
        intermediate_size=feed_forward,
        vocab_size=vocabulary,
        num_hidden_layers=layers,
    )
    assert [*checks.batch_problems(config), *checks.divisibility_problems(config, hf)] == []


def test_the_batch_script_has_its_edit_block_on_top():
    """sbatch reads directives up to the first command."""
    lines = (ROOT / "examples" / "slurm" / "train.sbatch").read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert directives and max(directives) < first_command


@pytest.fixture(scope="module")
def ray_node():
    path = ROOT / "examples" / "slurm" / "ray_node.py"
    spec = importlib.util.spec_from_file_location("ray_node", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_jobs_on_one_node_get_different_ports(ray_node):
    addresses = {ray_node.choose_address("127.0.0.1", job) for job in range(1000, 1100)}
    assert len(addresses) == 100
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_a_port_in_use_is_passed_over(ray_node):
    first = ray_node.choose_address("127.0.0.1", 1)
    ip, port = first.split(":")
    with socket.socket() as other:
        other.bind((ip, int(port)))
        other.listen()
        assert ray_node.choose_address("127.0.0.1", 1) != first


def test_a_head_that_does_not_come_up_is_named(ray_node, monkeypatch):
    monkeypatch.setattr(ray_node, "HEAD_SECONDS", 0.0)
    with pytest.raises(SystemExit, match=r"cannot reach Ray's head at 127\.0\.0\.1:9 .*firewalls"):
        ray_node._wait_for_port("127.0.0.1", 9)
