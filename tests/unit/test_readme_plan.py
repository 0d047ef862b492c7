"""What README says of time and memory is what `plan` says, and the script for one GPU fits where it says so."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from verl_relift.plan import hardware
from verl_relift.plan.planner import make_plan
from verl_relift.plan.report import as_json
from verl_relift.run.composition import Arguments

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GIB = 1 << 30
# | model | GPUs | command | peak of a GPU | a step |
ROWS = re.findall(r"^\| [^|]+ \| \d x [^|]+ \| `[^`]+` \| [\d.]+ of [\d.]+ GiB \| [\d,]+ s \|$", README, re.MULTILINE)


def arguments_of(command: str) -> tuple[str, list[str]]:
    """What a launch script gives to `verl_relift.train`, and the name of its GPU."""
    *variables, script = command.split()
    environment = {**os.environ, **dict(v.split("=", 1) for v in variables), "PYTHON": "echo"}
    environment.setdefault("TRAIN_FILES", "t.parquet")
    shown = subprocess.run([ROOT / script], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("-m verl_relift.train ")
    return shown.stdout.removeprefix("-m verl_relift.train ").split()


def plan_of(command: str, gpu: str) -> dict:
    config = Arguments.parse(arguments_of(command)).compose("cuda")
    if not config.actor_rollout_ref.model.path.startswith("Qwen/"):
        # The prepared copy of a base model: its shape, and more positions.
        config.actor_rollout_ref.model.path = "Qwen/Qwen2.5-7B"
    return as_json(make_plan(config, hardware.KNOWN[gpu], None, transformer_engine=True))


def figures(plan: dict) -> tuple[float, float, float]:
    """Peak and usable memory of a GPU in GiB, and the seconds of a step with its supervised update."""
    memory = plan["memory"]
    peak = max(phase["sum"] for phase in memory["phases"].values())
    return peak / GIB, memory["usable"] / GIB, sum(stage["seconds"] for stage in plan["work"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split(" | ")[0].strip("| "))
def test_the_readme_says_what_plan_says(row, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, devices, command, memory, seconds = (cell.strip() for cell in row.strip("|").split("|"))
    gpu = {"RTX 4090": "rtx4090", "H100": "h100"}[devices.split(" x ")[1]]
    plan = plan_of(command.strip("`"), gpu)
    assert plan["fits"], plan["problems"]
    peak, usable, step = figures(plan)
    assert memory == f"{peak:.1f} of {usable:.1f} GiB"
    assert float(seconds.split()[0].replace(",", "")) == pytest.approx(step, abs=0.5)


def test_the_readme_has_three_models():
    assert len(ROWS) == 3


@pytest.mark.parametrize(
    ("memory", "model", "gpu", "fits"),
    [(24, "qwen2.5-0.5b", "rtx4090", True), (80, "qwen2.5-0.5b", "h100", True), (80, "qwen2.5-1.5b", "h100", True),
     (24, "qwen2.5-1.5b", "rtx4090", False)],
)  # fmt: skip
@pytest.mark.parametrize("method", ["relift", "grpo"])
def test_the_script_for_one_gpu_fits_where_it_says_so(memory, model, gpu, fits, method, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = f"GPU_MEMORY={memory} MODEL={model} METHOD={method} examples/run_one_gpu.sh"
    assert plan_of(command, gpu)["fits"] is fits


@pytest.mark.parametrize(
    ("variable", "said"), [("GPU_MEMORY=40", "24 or 80"), ("METHOD=none", "no recipe/none/run.sh")]
)
def test_the_script_for_one_gpu_says_what_it_takes(variable, said):
    name, value = variable.split("=")
    environment = {**os.environ, name: value}
    ended = subprocess.run([ROOT / "examples/run_one_gpu.sh"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 2 and said in ended.stderr and len(ended.stderr.splitlines()) == 1
