"""A run that is killed resumes as if nothing had happened: the same metrics and weights, to the last bit.

On the small task, whose base model solves some questions and fails others, so that both updates have gradients.
"""

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from verl_relift.testing.launch import (
    differences,
    family,
    finish,
    kill,
    kill_when,
    records,
    start,
    story,
    wait_until,
    weights,
)

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU")

STEPS = 6
MEGATRON = "actor_rollout_ref.actor.megatron"
LAYOUTS = {
    "TP2": (),
    "PP2": (
        f"{MEGATRON}.tensor_model_parallel_size=1",
        f"{MEGATRON}.pipeline_model_parallel_size=2",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
    ),
    "DP2": (f"{MEGATRON}.tensor_model_parallel_size=1", "actor_rollout_ref.rollout.tensor_model_parallel_size=1"),
}
UPDATES = {
    "shared": (),
    "separate": ("method.sft.optimizer=separate",),
    "splice": ("method=relift_splice", "method.sft.weight=0.5"),
}
FAST = ("TP2", "separate")
CASES = [
    pytest.param(layout, update, marks=() if (layout, update) == FAST else pytest.mark.slow)
    for layout in LAYOUTS
    for update in UPDATES
]


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> tuple[str, ...]:
    """Data and base model of the small task, as overrides."""
    folder = tmp_path_factory.mktemp("task")
    for arguments in (
        ["data_preprocess.arithmetic", "--output", f"{folder}/data", "--train-size", "256", "--eval-size", "8"],
        [
            "verl_relift.quickstart.base_model",
            "--data",
            f"{folder}/data",
            "--output",
            f"{folder}/base",
            "--steps",
            "150",
        ],
    ):
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True)
    return (
        f"data.train_files={folder}/data/train.parquet",
        f"data.val_files={folder}/data/test.parquet",
        f"actor_rollout_ref.model.path={folder}/base",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "method.sft.batch_size=4",
        "trainer.resume_mode=auto",
        "trainer.save_freq=2",
        f"trainer.total_training_steps={STEPS}",
    )


@pytest.mark.parametrize(("layout", "update"), CASES)
def test_killed_and_resumed_is_bit_equal(task, tmp_path, layout, update):
    overrides = (*task, *LAYOUTS[layout], *UPDATES[update])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = finish(start("quickstart", whole, *overrides), whole)
    assert max(record["relift/sft_updates"] for record in expected) >= 2
    assert any(0.0 < record["critic/score/mean"] < 1.0 for record in expected)

    process = start("quickstart", broken, *overrides)
    # While it starts, which takes longer than being refused.
    wait_until(lambda: (broken / "run.lock").exists(), process, broken)
    refused = again(broken, *overrides)
    assert refused.returncode == 2 and f"in use by process {process.pid} on " in refused.stderr, refused.stderr
    wait_until(lambda: bool(records(broken)), process, broken)
    segments = shared_memory(process)
    assert segments
    kill_when(process, broken, lambda: len(records(broken)) >= 3)
    resumed = finish(start("quickstart", broken, *overrides), broken)
    assert f"resuming from step 2 of {STEPS} in {broken}" in broken.with_suffix(".log").read_text()
    assert differences(resumed, expected) == []
    assert weights(broken, STEPS) == weights(whole, STEPS)
    assert [path for path in segments if path.exists()] == []

    done = again(broken, *overrides)
    assert done.returncode == 0 and done.stderr.startswith(f"{STEPS} of {STEPS} steps are done in {broken}"), (
        done.stderr
    )
    other = again(broken, *overrides, "data.seed=5")
    assert other.returncode == 2 and "data.seed=5 (was 1)" in other.stderr and other.stderr.count("\n") == 1
    assert not (broken / "run.lock").exists()


def again(run: Path, *overrides: str) -> subprocess.CompletedProcess:
    """Give the command again, for which it must end before Ray starts."""
    command = [sys.executable, "-m", "verl_relift.train", "--config-name", "quickstart"]
    command += [f"trainer.default_local_dir={run}", *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def shared_memory(process: subprocess.Popen) -> set[Path]:
    """vLLM's and Python's segments that the run has in use."""
    found: set[str] = set()
    for member in family(process):
        with suppress(OSError):
            found |= set(
                re.findall(r"/dev/shm/(?:psm_\S+|\S+-cpushm_\d+)", Path(f"/proc/{member.pid}/maps").read_text())
            )
    return {Path(name) for name in found}


@pytest.mark.slow
def test_a_resumed_run_has_its_own_learning_rate_and_length(task, tmp_path):
    run = tmp_path / "run"
    lr = "actor_rollout_ref.actor.optim.lr"
    finish(start("quickstart", run, *task, "method.sft.optimizer=separate", "trainer.total_training_steps=2"), run)
    finish(start("quickstart", run, *task, "method.sft.optimizer=separate", f"{lr}=7e-6"), run)
    assert [record["step"] for record in records(run)] == list(range(1, STEPS + 1))
    # 5 steps of warm-up to the peak.
    rates = [record["actor/lr"] for record in records(run)]
    assert rates[1] < rates[0] * 3 and rates[-1] == pytest.approx(7e-6), rates
    log = run.with_suffix(".log").read_text()
    assert f"resuming from step 2 of {STEPS} in {run}" in log and f"changed since: {lr}=7e-06 (was 5e-05)" in log


VICTIMS = {"training worker": "ray::WorkerDict", "vLLM": "launch_server"}


@pytest.mark.parametrize(
    "deaths", [("training worker",), pytest.param(("training worker", "vLLM"), marks=pytest.mark.slow)], ids="-".join
)
def test_a_dead_worker_ends_the_run_with_its_cause_and_a_restart_resumes(task, tmp_path, deaths):
    """One run with --max-restarts: a training worker is killed, then vLLM's engine; it comes to its end by itself.

    The engine dies during a save, so that it is the workers, which hand it weights next, that wait for it. (It is a
    fork of the server's actor and has the name that it had then.)
    """
    run = tmp_path / "run"
    process = start("quickstart", run, *task, "trainer.save_freq=1", options=("--max-restarts", str(len(deaths))))
    log = run.with_suffix(".log")
    try:
        seen: dict[int, psutil.Process] = {}
        instants = (lambda: len(records(run)) >= 2, lambda: (run / "global_step_5.partial").exists())
        for instant, victim in zip(instants, deaths, strict=False):
            wait_until(instant, process, run)
            training = family(process)[1]
            before = {p.pid: p for p in training.children(recursive=True)}
            seen.update(before)
            killed = [p for p in before.values() if VICTIMS[victim] in command_line(p)]
            assert killed, [command_line(p) for p in before.values()]
            killed[0].kill()
            training.wait(timeout=60)
        assert process.wait(timeout=600) == 0, story(run)
        causes = [line for line in log.read_text().splitlines() if line.startswith("training failed: ")]
        assert len(causes) == len(deaths), causes
        for cause, victim in zip(causes, deaths, strict=True):
            assert re.search({"training worker": "training worker [01] died", "vLLM": "vLLM"}[victim], cause), causes
        assert [record["step"] for record in records(run)] == list(range(1, STEPS + 1))
        _, alive = psutil.wait_procs(seen.values(), timeout=10)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        kill(process)


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) + process.name()
    except psutil.Error:
        return ""
