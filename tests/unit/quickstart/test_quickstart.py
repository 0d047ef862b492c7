"""The quickstart's command line, and the progress that it reads from the run's metrics."""

import io
import json
import sys

import pytest
from rich.console import Console

from verl_relift.quickstart import __main__ as quickstart
from verl_relift.quickstart.progress import TrainingProgress


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Whether a quickstart was started."""
    monkeypatch.chdir(tmp_path)
    starts = []
    monkeypatch.setattr(quickstart.Quickstart, "go", lambda self: starts.append(self.overrides) or [])
    return starts


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_shows_help_and_starts_nothing(option, started, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["quickstart", option])
    quickstart.main()
    text = capsys.readouterr().out
    assert started == [] and text.startswith("usage: python -m verl_relift.quickstart") and len(text.splitlines()) <= 10


@pytest.mark.parametrize("argument", ["7", "--steps=4", "-v"])
def test_an_argument_that_it_does_not_know_is_named(argument, started, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["quickstart", argument])
    with pytest.raises(SystemExit) as ended:
        quickstart.main()
    assert ended.value.code == 2 and started == [] and argument in capsys.readouterr().err


def test_overrides_reach_the_training(started, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["quickstart", "trainer.total_training_steps=4"])
    with pytest.raises(SystemExit) as ended:
        quickstart.main()
    assert ended.value.code == 0 and started == [["trainer.total_training_steps=4"]]


def test_no_log_of_a_stage_is_the_runs_own():
    from verl_relift.run.console import LOG

    assert quickstart._log("train") != quickstart.RUN / LOG


def test_progress_of_a_resumed_run_is_that_of_its_new_steps(tmp_path):
    """The run takes out the steps after its last checkpoint, and lines differ in length."""
    output, path = io.StringIO(), tmp_path / "metrics.jsonl"

    def lines(*steps: int, seconds: float) -> str:
        records = [{"step": i, "time": seconds * i, "timing_s/step": seconds} for i in steps]
        return "".join(json.dumps(record) + "\n" for record in records)

    path.write_text(lines(*range(1, 8), seconds=2.125))
    progress = TrainingProgress(path, 9, Console(file=output, width=200))
    progress.update()
    path.write_text(lines(*range(1, 5), seconds=2.125))
    for step in range(5, 10):
        progress.update()
        path.write_text(path.read_text() + lines(step, seconds=2.0))
    progress.update()
    assert [line.split("  ")[0] for line in output.getvalue().splitlines()] == [f"step {i}/9" for i in range(5, 10)]


def test_progress_is_the_line_of_the_training_command(tmp_path):
    output, path = io.StringIO(), tmp_path / "metrics.jsonl"
    progress = TrainingProgress(path, 20, Console(file=output, width=200))
    progress.update()  # the file is not there yet
    records = [{"step": i, "time": 2.0 * i, "timing_s/step": 2.0, "critic/score/mean": 0.5} for i in range(1, 21)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records)[:-20])
    progress.update()
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    progress.update()
    lines = output.getvalue().splitlines()
    assert lines[0] == "step 1/20  ETA 0:38  reward 0.50  2.0 s/step"
    assert [int(line.split("/")[0].removeprefix("step ")) for line in lines] == [1, *range(2, 21, 2)]
