"""What the training command says and returns where it ends before Ray, torch or verl are even imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from verl_relift.run import checkpoints, lock
from verl_relift.run.composition import Arguments
from verl_relift.run.experiment import Record

STEPS = 6  # of the smoke configuration


def train(run: Path, *overrides: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Give the command; returns its status and what it says."""
    command = [sys.executable, "-X", "importtime", "-m", "verl_relift.train", "--config-name", "smoke", *options]
    command += [f"trainer.default_local_dir={run}", *overrides]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = result.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert not imported & {"torch", "ray", "verl", "vllm"}
    return result.returncode, "\n".join(line for line in lines if not line.startswith("import time:"))


@pytest.fixture
def finished(tmp_path) -> Path:
    run = tmp_path / "run"
    config = Arguments("smoke", None, (f"trainer.default_local_dir={run}",)).compose("cpu")
    folder = checkpoints.begin(run, STEPS)
    (folder / "relift").mkdir()
    (folder / checkpoints.STATE_FILE).write_text(json.dumps({"method": "relift"}))
    Record.of(config, steps_per_epoch=8).write(folder)
    for path in (run, folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    checkpoints.commit(run, STEPS)
    return run


@pytest.mark.parametrize("options", [(), ("--max-restarts", "3")])
def test_a_finished_run_is_done_at_once(finished, options):
    said = f"{STEPS} of {STEPS} steps are done in {finished}; there is nothing left to train"
    assert train(finished, options=options) == (0, said)
    assert not (finished / lock.LOCK).exists()


def test_another_experiment_is_refused_before_it_is_done(finished):
    status, said = train(finished, "data.seed=7")
    assert status == 2 and "data.seed=7 (was 1)" in said and said.count("\n") == 0


def test_a_folder_in_use_is_refused(tmp_path):
    held = lock.RunLock(tmp_path).acquire()
    status, said = train(tmp_path)
    held.release()
    assert status == 2 and said.startswith(f"trainer.default_local_dir={tmp_path} is in use by process ")
    assert said.count("\n") == 0


@pytest.mark.parametrize(("folder", "reason"), [("/proc/no/run", "No such file"), ("/dev/null/run", "Not a directory")])
def test_a_folder_that_cannot_be_written_is_refused(folder, reason):
    status, said = train(Path(folder))
    assert status == 2 and reason in said and said.endswith("choose a folder that you can write to")
    assert said.count("\n") == 0
