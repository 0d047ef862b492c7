"""Shell scripts and Dockerfiles: linters find nothing. The parts of the Slurm script that need no Slurm."""

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_SOURCE = {".git", ".venv", ".venv-gpu", "outputs", "build", "data", "models"}
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


def test_the_batch_script_has_its_edit_block_on_top():
    """sbatch reads directives up to the first command."""
    lines = (ROOT / "examples" / "slurm" / "train.sbatch").read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert directives and max(directives) < first_command


def without_slurm(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")} | variables
    command = ["bash", "examples/slurm/train.sbatch", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("variables", "nodes", "run"),
    [
        ({}, 2, "outputs/relift/relift-qwen2.5-math-7b"),
        ({"NODES": "4", "OUTPUT": "/shared/my run"}, 4, "/shared/my run"),
        ({"RUN_SCRIPT": "recipe/grpo/run.sh", "MODEL": "llama-3.1-8b"}, 2, "outputs/relift/grpo-llama-3.1-8b"),
    ],
)
def test_the_batch_script_shows_its_training_command_on_a_login_node(variables, nodes, run):
    shown = without_slurm("--show", "trainer.save_freq=7", "+a='b c'", **variables)
    assert shown.returncode == 0, shown.stderr
    words = shlex.split(shown.stdout)
    assert words[:3] == ["python", "-m", "verl_relift.train"] and words[-2:] == ["trainer.save_freq=7", "+a='b c'"]
    assert {f"trainer.nnodes={nodes}", "trainer.n_gpus_per_node=8", f"trainer.default_local_dir={run}"} <= set(words)


def test_the_batch_script_says_what_it_can_do_without_a_job():
    refused = without_slurm("--help")
    assert refused.returncode != 0 and "submit this script with sbatch; bash" in refused.stderr
    missing = without_slurm("--show", RUN_SCRIPT="recipe/none/run.sh")
    assert missing.returncode == 2 and "no recipe/none/run.sh" in missing.stderr


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


def test_a_folder_that_another_user_prepared_is_not_used(ray_node, monkeypatch):
    """Ray's folder of a node: whoever knows the number of the job knows the start of its name, not the rest."""
    monkeypatch.setenv("SLURM_JOB_ID", f"test-{os.getpid()}")
    monkeypatch.setenv("SLURM_NODEID", "0")
    prepared = Path("/tmp") / f"ray-test-{os.getpid()}-0"
    prepared.mkdir(mode=0o777)
    made = []
    try:
        (prepared / "start.log").symlink_to(prepared / "a-file-of-the-owner")
        made = [ray_node.make_folder() for _ in range(2)]
        assert len({prepared, *made}) == 3
        for folder in made:
            assert folder.name.startswith(prepared.name) and list(folder.iterdir()) == []
            assert folder.stat().st_mode & 0o777 == 0o700 and folder.stat().st_uid == os.getuid()
        assert not (prepared / "a-file-of-the-owner").exists()
    finally:
        for folder in (prepared, *made):
            shutil.rmtree(folder)
