"""SIGUSR1 ends a run between two steps, with a checkpoint; the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Data and a random model."""
    folder = tmp_path_factory.mktemp("prepared")
    for arguments in (
        ["data_preprocess.gsm8k", "--input", str(GSM8K), "--output", str(folder / "data"), "--template", "think"],
        ["verl_relift.quickstart.random_model", "--output", str(folder / "model")],
    ):
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True)
    return folder


def start(prepared: Path, run: Path, *overrides: str) -> subprocess.Popen:
    with open(run.with_suffix(".log"), "a") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "verl_relift.train", "--config-name", "smoke"),
                f"data.train_files={prepared}/data/train.parquet",
                f"data.val_files={prepared}/data/test.parquet",
                f"actor_rollout_ref.model.path={prepared}/model",
                f"trainer.default_local_dir={run}",
                *overrides,
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def records(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_stopped_run_has_a_checkpoint_and_goes_on(prepared, tmp_path):
    run = tmp_path / "run"
    process = start(prepared, run, "trainer.total_training_steps=1000", "trainer.save_freq=1000")
    try:
        deadline = time.time() + 300
        while not records(run):
            assert process.poll() is None and time.time() < deadline, run.with_suffix(".log").read_text()[-4000:]
            time.sleep(0.2)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=120) == 75
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    stopped = records(run)[-1]["step"]
    assert stopped < 1000
    assert (run / "latest_checkpointed_iteration.txt").read_text() == str(stopped)
    assert f"stopped after step {stopped}" in run.with_suffix(".log").read_text()

    # A request that comes before the first step: nothing is trained, nothing is lost.
    process = start(prepared, run, f"trainer.total_training_steps={stopped + 1}", "trainer.save_freq=1000")
    try:
        time.sleep(5.0)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=300) == 75, run.with_suffix(".log").read_text()[-4000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert records(run)[-1]["step"] == stopped

    process = start(prepared, run, f"trainer.total_training_steps={stopped + 1}", "trainer.save_freq=1000")
    try:
        assert process.wait(timeout=300) == 0, run.with_suffix(".log").read_text()[-4000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert [record["step"] for record in records(run)] == list(range(1, stopped + 2))
    assert (run / "latest_checkpointed_iteration.txt").read_text() == str(stopped + 1)
