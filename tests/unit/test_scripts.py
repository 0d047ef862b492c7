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


def without_slurm(
    *arguments: str, script: str = "examples/slurm/train.sbatch", folder: Path | str = ROOT, **variables: str
) -> subprocess.CompletedProcess:
    others = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    # A model that exists already, so that no line about a missing one is printed.
    environment = others | {"MODEL_PATH": str(ROOT)} | variables
    command = ["bash", script, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("variables", "nodes", "run"),
    [
        ({}, 2, "outputs/relift/relift-qwen2.5-math-7b"),
        ({"NODES": "4", "OUTPUT": "/shared/my run"}, 4, "/shared/my run"),
        ({"RUN_SCRIPT": "recipe/grpo/run.sh", "MODEL": "llama-3.1-8b"}, 2, "outputs/relift/grpo-llama-3.1-8b"),
    ],
)
def test_the_batch_script_shows_its_training_command_on_a_login_node(variables, nodes, run):
    shown = without_slurm("trainer.save_freq=7", "--show", "+a='b c'", **variables)
    assert shown.returncode == 0, shown.stderr
    heading, checks, first, *others = shown.stdout.splitlines()
    assert heading == f"# nodes x GPUs: {nodes} x 8; time limit: 24:00:00"
    model, script = variables.get("MODEL", "qwen2.5-math-7b"), variables.get("RUN_SCRIPT", "recipe/relift/run.sh")
    assert checks == (
        f"# --show does not check the settings; this does: MODEL={model} NODES={nodes} GPUS_PER_NODE=8 {script} --plan "
        "--gpu h100 trainer.save_freq=7 +a=\\'b\\ c\\'"
    )
    assert first == "python -m verl_relift.train \\" and all(line.startswith("    ") for line in others)
    words = shlex.split(shown.stdout.replace("\\\n", ""), comments=True)
    assert words[:3] == ["python", "-m", "verl_relift.train"] and words[-2:] == ["trainer.save_freq=7", "+a='b c'"]
    assert len(words) - 2 == len(shown.stdout.splitlines()) - 2  # one argument a line
    assert {f"trainer.nnodes={nodes}", "trainer.n_gpus_per_node=8", f"trainer.default_local_dir={run}"} <= set(words)


GPUS = "#SBATCH --gpus-per-node=8"
NODES = "#SBATCH --nodes=2"


def with_directives(tmp_path: Path, changed: dict[str, str], **variables: str) -> subprocess.CompletedProcess:
    """Show what a copy of the batch script would run, some lines of which a user has changed."""
    text = (ROOT / "examples" / "slurm" / "train.sbatch").read_text()
    for line, other in changed.items():
        assert f"{line}\n" in text
        text = text.replace(f"{line}\n", f"{other}\n")
    copy = tmp_path / "train.sbatch"
    copy.write_text(text)
    copy.chmod(0o755)
    return without_slurm("--show", script=str(copy), **variables)


@pytest.mark.parametrize(
    ("changed", "nodes", "gpus"),
    [
        ({GPUS: "#SBATCH --gres=gpu:4"}, 2, 4),
        ({GPUS: "#SBATCH --gpus-per-node=a100:4"}, 2, 4),
        ({GPUS: "#SBATCH --gpus-per-node 4"}, 2, 4),
        ({GPUS: "#SBATCH --gpus-per-node=a100:2,v100:2"}, 2, 4),
        ({GPUS: "#SBATCH --gres=gpu:a100:4"}, 2, 4),
        ({GPUS: "#SBATCH --gres=gpu:1g.5gb:4"}, 2, 4),
        ({GPUS: "#SBATCH --gres=gpu"}, 2, 1),
        ({GPUS: "#SBATCH --gres=gpu:a100"}, 2, 1),
        ({GPUS: "#SBATCH --gres=nvme:2,gpu:a100:4,gpu:h100:2"}, 2, 6),
        ({GPUS: f"{GPUS}\n#SBATCH --gpus-per-node=4  # --gpus-per-node=2"}, 2, 4),
        ({GPUS: f"{GPUS} --gres=nvme:1"}, 2, 8),
        ({NODES: "#SBATCH -N 4"}, 4, 8),
        ({NODES: "#SBATCH -N4"}, 4, 8),
        ({NODES: "#SBATCH --nodes 4 --gres=nvme:1"}, 4, 8),
        ({NODES: "##SBATCH --nodes=4"}, 1, 8),
        ({NODES: "#SBATCH --nodes=4", GPUS: "#SBATCH --gres=gpu:1"}, 4, 1),
    ],
)  # fmt: skip
def test_the_batch_script_reads_its_directives_as_slurm_does(changed, nodes, gpus, tmp_path):
    shown = with_directives(tmp_path, changed)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"# nodes x GPUs: {nodes} x {gpus}; time limit: 24:00:00\n")
    assert {f"trainer.nnodes={nodes}", f"trainer.n_gpus_per_node={gpus}"} <= set(shlex.split(shown.stdout))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({NODES: "#SBATCH --nodes=2-4"}, "--nodes=2-4 is not one number; set NODES"),
        ({GPUS: "#SBATCH --gpus=16"}, "set GPUS_PER_NODE"),
        ({GPUS: "#SBATCH --gpus-per-task=8"}, "set GPUS_PER_NODE"),
        ({GPUS: "#SBATCH --gpus-per-node=0"}, "set GPUS_PER_NODE"),
        ({GPUS: "#SBATCH --gres=gpu:a100:x"}, "set GPUS_PER_NODE"),
        ({GPUS: f"{GPUS}\n#SBATCH --gres=gpu:4"}, "set GPUS_PER_NODE"),
        ({GPUS: ""}, "set GPUS_PER_NODE"),
    ],
)
def test_directives_that_give_no_number_are_refused_in_a_line(changed, line, tmp_path):
    shown = with_directives(tmp_path, changed)
    assert shown.returncode == 2 and shown.stdout == "" and shown.stderr.count("\n") == 1 and line in shown.stderr
    assert with_directives(tmp_path, changed, NODES="4", GPUS_PER_NODE="4").returncode == 0


def test_variables_that_sbatch_reads_come_before_directives(tmp_path):
    shown = with_directives(tmp_path, {}, SBATCH_GPUS_PER_NODE="h100:4", SBATCH_TIMELIMIT="1:00:00")
    assert shown.stdout.startswith("# nodes x GPUs: 2 x 4; time limit: 1:00:00\n")
    shown = with_directives(tmp_path, {GPUS: "", "#SBATCH --time=24:00:00": ""}, SBATCH_GRES="gpu:2")
    assert shown.stdout.startswith("# nodes x GPUs: 2 x 2; time limit: of the partition\n")


def test_the_batch_script_says_what_it_can_do_without_a_job():
    refused = without_slurm("--help")
    assert refused.returncode != 0 and "submit this script with sbatch; bash" in refused.stderr


def test_what_is_not_there_is_named():
    missing = without_slurm("--show", RUN_SCRIPT="recipe/lufy/run.sh")
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1
    assert "RUN_SCRIPT=recipe/lufy/run.sh: no such file; choose one of recipe/chord_mu/run.sh" in missing.stderr
    assert "recipe/luffy/run.sh" in missing.stderr and "ray_node" not in missing.stderr
    elsewhere = without_slurm("--show", script=str(ROOT / "examples" / "slurm" / "train.sbatch"), folder="/")
    assert elsewhere.returncode == 2 and "/ is not the repository's root; submit from there" in elsewhere.stderr


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
