"""The stages of `make pretrained`: what is done is not done again, and when the model counts as better."""

import json

import pytest
from rich.console import Console

from verl_relift.pretrained import __main__ as pretrained
from verl_relift.pretrained.summary import last_number, shortfalls
from verl_relift.quickstart.stages import StageFailed


@pytest.fixture
def stages(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "STAGES", tmp_path / "stages.json")
    monkeypatch.setattr(pretrained, "LOGS", tmp_path / "logs")

    def command(name, code):
        """Run a stage in a new process of `make pretrained`; return how often it has run in all."""
        one = pretrained.Pretrained([], Console(quiet=True))
        runs = tmp_path / name
        one._stage(name, name, ["-c", f"open({str(runs)!r}, 'a').write('x'); {code}"])
        return len(runs.read_text())

    return command


def test_a_finished_stage_is_not_repeated_unless_its_command_changes(stages):
    assert [stages("train", "pass"), stages("train", "pass"), stages("train", "1 + 1"), stages("data", "pass")] == [
        1,
        1,
        2,
        1,
    ]


def test_a_failed_stage_runs_again_and_its_time_counts(stages, tmp_path):
    for _ in range(2):
        with pytest.raises(StageFailed):
            stages("train", "raise SystemExit(1)")
    assert (tmp_path / "train").read_text() == "xx"
    assert json.loads((tmp_path / "stages.json").read_text())["train"]["command"] is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("12 + 3 = 15.", 15.0), ("it costs $1,200", 1200.0), ("-4", -4.0), ("2.5 kg", 2.5), ("none", None)],
)
def test_the_last_number_of_a_text(text, number):
    assert last_number(text) == number


def test_a_model_is_better_if_the_interval_is_above_zero():
    assert shortfalls({"gain": 0.1, "gain_interval": [0.02, 0.2]}) == []
    [line] = shortfalls({"gain": 0.02, "gain_interval": [-0.01, 0.05]})
    assert line == "accuracy +2.0%, with a 95% interval of -1.0% to +5.0% that includes none"
