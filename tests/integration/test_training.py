"""The training command on real questions: Ray, Megatron TP=2 in two workers, vLLM, weights through shared memory."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from verl_relift.testing.launch import story, with_empty_folders

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU")

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"
STEPS = 5
REQUIRED = (
    "relift/hardest_questions",
    "relift/hardest_fraction",
    "relift/buffer_size",
    "relift/demonstrations_accepted",
    "relift/sft_updates",
    "relift/demonstrations_used",
    "relift/demonstration_fraction",
    "relift/sft_loss",
    "relift/sft_entropy",
    "relift/sft_grad_norm",
    "relift/hardest_recovered",
    "timing_s/update_actor_sft",
    "relift/outcome/no_answer",
    "timing_s/gen",
    "timing_s/update_actor",
    "timing_s/update_weights",
    "actor/grad_norm",
    "critic/score/mean",
    "response_length/mean",
    "training/rollout_probs_diff_max",
)


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(("psm_", "vllm_", "verl_"))}


def command(prepared: Path, run: Path, *overrides: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "verl_relift.train",
        "--config-name",
        "smoke",
        f"data.train_files={prepared}/data/train.parquet",
        f"data.val_files={prepared}/data/test.parquet",
        f"actor_rollout_ref.model.path={prepared}/model",
        f"trainer.default_local_dir={run}",
        *overrides,
    ]


def train(prepared: Path, run: Path, *overrides: str) -> list[dict]:
    """Run to the end; the lines of its metrics.jsonl."""
    log = run.with_suffix(".log")
    environment = {**os.environ, "WANDB_MODE": "offline"}
    started, left = with_empty_folders(command(prepared, run, *overrides), run.with_suffix(".clean"))
    with open(log, "w") as output:
        status = subprocess.run(
            started, stdout=output, stderr=subprocess.STDOUT, timeout=600, env=environment
        ).returncode
    assert status == 0, story(run)
    assert left.read_text() == ""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """The slice of GSM8K as parquet and a random model, by the commands of the README."""
    folder = tmp_path_factory.mktemp("prepared")
    for arguments in (
        ["data_preprocess.gsm8k", "--input", str(GSM8K), "--output", str(folder / "data"), "--template", "think"],
        ["verl_relift.quickstart.random_model", "--output", str(folder / "model")],
    ):
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory) -> tuple[Path, list[dict]]:
    """A finished run of STEPS steps with a checkpoint at step 3."""
    run = tmp_path_factory.mktemp("runs") / "gsm8k"
    before = shared_memory()
    records = train(
        prepared,
        run,
        f"trainer.total_training_steps={STEPS}",
        "trainer.save_freq=3",
        "trainer.logger=[console,tensorboard,wandb]",
    )
    assert shared_memory() <= before
    return run, records


def test_every_question_is_hardest_and_the_supervised_loss_falls(finished):
    _, records = finished
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert all(record["relift/hardest_fraction"] == 1.0 for record in records)
    # One demonstration of the slice is too long, so that a step may leave the buffer one short.
    assert records[-1]["relift/sft_updates"] >= STEPS - 1
    assert records[-1]["relift/sft_updates"] == records[-1]["relift/demonstrations_accepted"] // 8
    losses = [record["relift/sft_loss"] for record in records if "relift/sft_loss" in record]
    assert losses[-1] < losses[0] - 0.1, losses


def test_the_console_is_the_progress_and_the_log_has_the_rest(finished):
    run, _ = finished
    printed = run.with_suffix(".log").read_text().splitlines()
    # A slow machine adds lines that say for how long a phase has lasted, one a minute ("starting vLLM 1:00").
    lines = [line for line in printed if not re.search(r"\d:\d\d$", line)]
    steps = [number for number, line in enumerate(lines) if line.startswith("step ")]
    assert steps[0] <= 10 and len(lines) <= 20, lines
    assert lines[0].startswith("checking ") and lines[2] == f"a new run of {STEPS} steps in {run}"
    for word in ("reward", "accuracy", "hardest", "buffer", "supervised updates", "tokens/s", "ETA"):
        assert f"  {word} " in lines[steps[0]] or f" {word}" in lines[steps[0]], word
    end = lines[steps[-1] + 1 :]
    assert end[0].startswith(f"done: step {STEPS} in ")
    assert [line.split()[0] for line in end[1:]] == ["report", "evaluate", "export"]
    log = (run / "logs/train.log").read_text()
    assert "WorkerDict" in log and "step:1 - " in log and "np.float64" not in log


def test_every_metric_is_explained(finished):
    from tests.unit.test_docs_commands import documented

    _, records = finished
    pattern = documented()
    assert {name for record in records for name in record if not pattern.fullmatch(name)} == set()


def test_every_metric_of_the_contract_is_there(finished):
    _, records = finished
    assert [name for name in REQUIRED if name not in records[-1]] == []


def test_the_timers_of_a_step_add_up_to_it(finished):
    """None contains another, and none is missing."""
    _, records = finished
    for record in records[1:]:
        timers = {name: value for name, value in record.items() if name.startswith("timing_s/")}
        whole = timers.pop("timing_s/step")
        parts = sum(value for name, value in timers.items() if name not in ("timing_s/testing", "timing_s/startup"))
        assert parts == pytest.approx(whole, rel=0.02), (whole, timers)


def test_tensorboard_and_wandb_get_the_metrics_of_relift(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, records = finished
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    updated = [record["step"] for record in records if "relift/sft_loss" in record]
    assert [event.step for event in events.Scalars("relift/sft_loss")] == updated
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


def test_rollouts_and_actor_agree_after_both_kinds_of_update(finished):
    """Step k's rollouts come from the weights that k-1 RL and k-1 supervised updates made."""
    _, records = finished
    assert max(record["training/rollout_probs_diff_max"] for record in records[1:]) < 1e-5
    # Each of the two engines is up to 1e-5 away from float64 in the log-probability of its worst token.
    assert max(record["training/rollout_log_probs_diff_max"] for record in records[1:]) < 3e-5


def test_the_checkpoint_holds_the_weights_and_the_state_of_relift(finished):
    run, records = finished
    assert (run / "latest_checkpointed_iteration.txt").read_text() == str(STEPS)
    folder = run / "global_step_3"
    assert (folder / "actor" / "model" / "huggingface" / "model.safetensors").stat().st_size > 1e6
    state = json.loads((folder / "relift" / "state.json").read_text())
    assert state["sft_updates"] == records[2]["relift/sft_updates"]
    assert len(state["used"]) == records[2]["relift/demonstrations_used"]
    assert (run / "config.yaml").exists()


@pytest.mark.slow
def test_a_resumed_run_continues_where_the_checkpoint_was_made(finished, prepared, tmp_path):
    """Steps 4 and 5 again, from the checkpoint of step 3, in fresh processes."""
    run, records = finished
    resumed = train(
        prepared,
        tmp_path / "resumed",
        f"trainer.total_training_steps={STEPS}",
        "trainer.save_freq=-1",
        "trainer.resume_mode=resume_path",
        f"trainer.resume_from_path={run}/global_step_3",
    )
    assert [record["step"] for record in resumed] == [4, 5]
    assert f"resuming from step 3 of {STEPS} in {run}" in (tmp_path / "resumed.log").read_text()
    for again, first in zip(resumed, records[3:], strict=True):
        for name in ("relift/sft_updates", "relift/demonstrations_used", "relift/buffer_size", "actor/lr"):
            assert again[name] == first[name], name
        for name in ("relift/sft_loss", "relift/sft_grad_norm", "actor/entropy", "response_length/mean"):
            assert again[name] == pytest.approx(first[name], rel=1e-4), name


def test_ctrl_c_leaves_no_process_and_no_shared_memory(prepared, tmp_path):
    before = shared_memory()
    run, said = tmp_path / "interrupted", tmp_path / "interrupted.log"
    process = subprocess.Popen(
        command(prepared, run),
        stdout=subprocess.DEVNULL,
        stderr=said.open("w"),
        start_new_session=True,
        # Tests that a shell has put into the background ignore it, and their children with them.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    family: dict[int, psutil.Process] = {}
    try:
        deadline = time.time() + 300
        while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
            assert process.poll() is None and time.time() < deadline
            family.update({child.pid: child for child in psutil.Process(process.pid).children(recursive=True)})
            time.sleep(0.5)
        family.update({child.pid: child for child in psutil.Process(process.pid).children(recursive=True)})
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        [at_once] = [line for line in said.read_text().splitlines() if "the same command " in line][1:]
        assert at_once.startswith("Ctrl-C: stopping now, nothing more is saved; ") and ", and makes step" in at_once
        assert said.read_text().splitlines()[-1] == "interrupted"
        _, alive = psutil.wait_procs(family.values(), timeout=15)
        assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
        assert shared_memory() <= before
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
