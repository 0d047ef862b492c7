"""metrics.jsonl survives kills, resumed runs and values that are not finite."""

import json

import numpy as np
import pytest

from verl_relift.run.folder import MetricsFile, write_atomically


class Recorder:
    """Stands in for verl's Tracking."""

    def __init__(self):
        self.logged, self.finished = [], None

    def log(self, data, step, backend=None):
        self.logged.append((step, data))

    def finish(self, exit_code=0):
        self.finished = exit_code


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_record_becomes_a_line_and_reaches_verl(tmp_path):
    recorder, path = Recorder(), tmp_path / "run" / "metrics.jsonl"
    metrics = MetricsFile(recorder, path, resume_step=0)
    metrics.log({"loss": np.float32(0.5), "count": np.int64(3), "bad": float("nan"), "text": "x"}, step=1)
    metrics.finish(exit_code=7)
    [line] = lines(path)
    assert line.pop("time") > 0
    assert line == {"step": 1, "loss": 0.5, "count": 3, "bad": None}
    assert recorder.logged[0][0] == 1 and recorder.finished == 7
    assert "np." not in repr(recorder.logged), "verl's trackers print what they get"


def test_the_callback_finds_the_record_written(tmp_path):
    path, found = tmp_path / "metrics.jsonl", []
    metrics = MetricsFile(
        Recorder(), path, resume_step=0, then=lambda record: found.append((len(lines(path)), record["loss"]))
    )
    metrics.log({"loss": 1.0}, step=1)
    metrics.log({"loss": 2.0}, step=2)
    assert found == [(1, 1.0), (2, 2.0)]


def test_a_resumed_run_drops_the_steps_that_it_repeats(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    MetricsFile(Recorder(), path, resume_step=2).finish()
    assert [line["step"] for line in lines(path)] == [1, 2]


def test_a_fresh_run_starts_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    MetricsFile(Recorder(), path, resume_step=0).finish()
    assert lines(path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.json"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, None)
    assert path.read_text() == "old"
