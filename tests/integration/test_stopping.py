"""Signals end a run in order: SIGUSR1 between two steps, with a checkpoint, SIGTERM at once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from verl_relift.testing.launch import family, finish, kill, records, start, story, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"


@pytest.fixture(scope="module")
def overrides(tmp_path_factory) -> tuple[str, ...]:
    """Data and a random model."""
    folder = tmp_path_factory.mktemp("prepared")
    for arguments in (
        ["data_preprocess.gsm8k", "--input", str(GSM8K), "--output", str(folder / "data"), "--template", "think"],
        ["verl_relift.quickstart.random_model", "--output", str(folder / "model")],
    ):
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True)
    return (
        f"data.train_files={folder}/data/train.parquet",
        f"data.val_files={folder}/data/test.parquet",
        f"actor_rollout_ref.model.path={folder}/model",
        "trainer.save_freq=1000",
    )


def signalled(process: subprocess.Popen, run: Path, number: signal.Signals, steps: int) -> int:
    """Send a signal once `steps` steps are logged; the exit status."""
    try:
        wait_until(lambda: len(records(run)) >= steps, process, run)
        if not steps:
            time.sleep(5.0)  # its handlers are set, its first step is far
        process.send_signal(number)
        return process.wait(timeout=300)
    finally:
        kill(process)


def test_a_stopped_run_has_a_checkpoint_and_goes_on(overrides, tmp_path):
    run = tmp_path / "run"
    process = start("smoke", run, *overrides, "trainer.total_training_steps=1000")
    assert signalled(process, run, signal.SIGUSR1, steps=1) == 75, story(run)
    stopped = records(run)[-1]["step"]
    assert stopped < 1000
    assert (run / "latest_checkpointed_iteration.txt").read_text() == str(stopped)
    assert f"stopped after step {stopped}" in story(run)

    # A request that comes before the first step: nothing is trained, nothing is lost.
    again = (*overrides, f"trainer.total_training_steps={stopped + 1}")
    assert signalled(start("smoke", run, *again), run, signal.SIGUSR1, steps=0) == 75, story(run)
    assert records(run)[-1]["step"] == stopped

    finish(start("smoke", run, *again), run)
    assert [record["step"] for record in records(run)] == list(range(1, stopped + 2))
    assert (run / "latest_checkpointed_iteration.txt").read_text() == str(stopped + 1)


def test_a_finished_run_that_is_asked_to_stop_is_finished(overrides, tmp_path):
    run = tmp_path / "run"
    whole = (*overrides, "trainer.total_training_steps=2", "trainer.save_freq=1")
    process = start("smoke", run, *whole)
    try:
        wait_until(lambda: len(records(run)) >= 1, process, run)
        wait_until(lambda: (run / "global_step_2.partial").exists(), process, run)
        process.send_signal(signal.SIGUSR1)  # in the last step
        assert process.wait(timeout=300) == 0, story(run)
    finally:
        kill(process)
    again = start("smoke", run, *whole)
    assert again.wait(timeout=60) == 0
    assert "2 of 2 steps are done" in story(run)


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_ends_a_run_with_one_line_and_without_a_restart(overrides, tmp_path):
    """The disk takes one checkpoint and a part of the second; with room, the same command comes to the end."""
    run = tmp_path / "run"
    run.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(run)], check=True)
    filler = run / "filler"
    whole = (*overrides, "trainer.total_training_steps=4", "trainer.save_freq=2")
    process = start("smoke", run, *whole, options=("--max-restarts", "3"))
    try:
        wait_until(lambda: (run / "global_step_2").exists(), process, run)
        size = sum(path.stat().st_size for path in (run / "global_step_2").rglob("*"))
        free = shutil.disk_usage(run).free
        filler.write_bytes(bytes(free - size // 2))
        assert process.wait(timeout=300) == 74, story(run)
        last = story(run).splitlines()[-1]
        assert last.startswith(f"training failed: step 4: No space left on device: the file system {run} has "), last
        assert "restart" not in story(run)
        names = {path.name for path in run.iterdir()} - {"logs", "tensorboard"}
        assert names == {"config.yaml", "metrics.jsonl", "latest_checkpointed_iteration.txt", "global_step_2", "filler"}
        assert [record["step"] for record in records(run)] == [1, 2, 3]
        filler.unlink()
        finish(start("smoke", run, *whole), run)
        assert [record["step"] for record in records(run)] == [1, 2, 3, 4]
    finally:
        kill(process)
        subprocess.run(["umount", "-l", str(run)], check=True)


def test_a_terminated_run_leaves_no_process(overrides, tmp_path):
    run = tmp_path / "run"
    process = start("smoke", run, *overrides, "trainer.total_training_steps=1000")
    try:
        wait_until(lambda: bool(records(run)), process, run)
        started = family(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM, story(run)
        _, alive = psutil.wait_procs(started, timeout=15)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        kill(process)
