"""Every launch script builds the real engine and makes a step with it, on tensors without memory (`plan --trace`).

The models have their real widths and few layers; all settings are those of the scripts.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from verl_relift.testing.launch import with_empty_folders
from verl_relift.testing.launches import ROOT, Launch, differences, launches, plan, traces

LAYERS = 2
MOST_BYTES = 4 << 30
LIMIT = 0.03  # of the trace; the arithmetic is that close with all layers, too (benchmarks/engine/plan_trace.py)
# The others differ from these in the arguments of their method, and are traced in the slow lane.
ALWAYS = ("recipe/relift_splice/run.sh", "recipe/grpo/run.sh")


def answer(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    """What `plan` answers; it leaves nothing in /tmp."""
    command, left = with_empty_folders(plan(arguments), folder / "clean")
    answered = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert left.read_text() == ""
    return answered


def ranks(answered: subprocess.CompletedProcess) -> list[dict]:
    assert answered.returncode in (0, 1), answered.stdout[-2000:] + answered.stderr[-4000:]
    return traces(answered.stdout)


def agree(rank: dict) -> None:
    """The arithmetic has the traced bytes of weights, gradients and optimizers, and nearly those of each update."""
    for phase, (planned, traced) in differences(rank).items():
        assert planned == pytest.approx(traced, rel=LIMIT), phase
        for part in ("weights", "gradients", "optimizer", "second optimizer"):
            found = rank["phases"][phase]["device"]["parts"].get(part, 0)
            assert rank["planned"][phase].get(part, 0) == pytest.approx(found, rel=1e-3, abs=1 << 20), part


ALL = launches(LAYERS)
FAST = [one for one in ALL if one.script.startswith("examples/") or one.script in ALWAYS]


def test_every_launch_script_is_here():
    scripts = {str(path.relative_to(ROOT)) for path in (*ROOT.glob("examples/run_*.sh"), *ROOT.glob("recipe/*/run.sh"))}
    assert scripts == {one.script for one in ALL} | {"recipe/relift/run.sh"}  # which every script in examples/ is
    assert set(ALWAYS) < scripts and len(FAST) == 8


@pytest.fixture(scope="module")
def answers(request, tmp_path_factory):
    """What `plan --trace` answers to the launches that are tested. Two at a time: each takes one core."""
    own = [item for item in request.session.items if item.path == request.path and "answers" in item.fixturenames]
    tested = [item.callspec.params["launch"] for item in own]
    with ThreadPoolExecutor(2) as pool:
        yield {one: pool.submit(_answer, one, tmp_path_factory.mktemp(str(one))) for one in tested}


def _answer(launch: Launch, folder: Path) -> subprocess.CompletedProcess:
    return answer(launch.arguments(folder), folder)


@pytest.mark.parametrize("launch", FAST, ids=str)
def test_a_launch_script_builds_and_makes_a_step(launch, answers):
    for rank in ranks(answers[launch].result()):
        agree(rank)


@pytest.mark.slow
@pytest.mark.parametrize("launch", [one for one in ALL if one not in FAST], ids=str)
def test_the_other_recipes_build_and_make_a_step(launch, tmp_path):
    for rank in ranks(_answer(launch, tmp_path)):
        agree(rank)


@pytest.mark.slow
@pytest.mark.parametrize("launch", launches(), ids=str)
def test_a_launch_script_in_full_size(launch, tmp_path):
    for rank in ranks(_answer(launch, tmp_path)):
        agree(rank)
        assert rank["process"] < MOST_BYTES


@pytest.mark.slow
def test_an_engine_that_does_not_build_ends_with_one_line_and_2(tmp_path):
    arguments = ALL[0].arguments(tmp_path)
    unknown = "+actor_rollout_ref.actor.megatron.override_transformer_config.no_such_field=1"
    answered = answer([*arguments, unknown], tmp_path)
    assert answered.returncode == 2
    (line,) = answered.stderr.splitlines()
    assert line.startswith("the training engine does not build: TypeError: ")
    assert "no_such_field" in line
    assert "mbridge" in line
