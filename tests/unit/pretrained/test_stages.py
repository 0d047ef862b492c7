"""The stages of `make pretrained`: what is done is not done again, and when the model counts as better."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from verl_relift.evaluate.__main__ import _parser as evaluate_parser
from verl_relift.evaluate.store import Graded
from verl_relift.pretrained import __main__ as pretrained
from verl_relift.pretrained.summary import last_number, shortfalls
from verl_relift.quickstart.stages import StageFailed
from verl_relift.run.composition import Arguments


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


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Work in an empty folder, with commands that only leave what the next stage needs; return those that ran."""
    for name in ("examples", "data_preprocess"):
        (tmp_path / name).symlink_to(Path(name).absolute())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def leave(command, log, memory, watch):
        made.append(command)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("vLLM's own lines\n" + "\n".join(pretrained.ASKED))
        output = Path(command[command.index("--output") + 1]) if "--output" in command else None
        if "verl_relift.evaluate" in command:
            write_evaluation(output, right=[0] * 20 if "base" in output.name else [1] * 20)
        if "verl_relift.train" in command:
            step = {
                "step": 4,
                "timing_s/step": 2.0,
                "perf/total_num_tokens": 100,
                "training/rollout_probs_diff_max": 0.1,
            }
            (pretrained.RUN / "metrics.jsonl").write_text(json.dumps(step) + "\n")
            (pretrained.RUN / "latest_checkpointed_iteration.txt").write_text("4")
        return 1.0

    made = []
    monkeypatch.setattr(pretrained, "run", leave)
    return made


def write_evaluation(folder, right):
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, correct in enumerate(right):
        outcome, answer = ("correct", str(i)) if correct else ("no_answer", None)
        response = f"\\boxed{{{i}}}" if correct else f"It is {i}."
        values = ("f:" + str(i), 0, "svamp", f"question {i}", outcome, answer, str(i), 5, False, response, None)
        lines.append(json.dumps(dict(zip(Graded.__dataclass_fields__, values, strict=True))))
    (folder / "generations.jsonl").write_text("\n".join(lines) + "\n")
    for name in ("settings.json", "summary.json"):
        (folder / name).write_text("{}")


def test_every_command_is_one_that_its_program_takes(commands):
    assert pretrained.Pretrained(["trainer.total_training_steps=4"], Console(quiet=True)).go() == []
    by_module = {command[1] if command[0] == "-m" else command[0]: command for command in commands}
    modules = ["verl_relift.pretrained.fetch", "data_preprocess.svamp", "verl_relift.evaluate", "verl_relift.train"]
    assert list(by_module) == [*modules, "verl_relift.export", str(pretrained.EXAMPLE), "verl_relift.report"]
    evaluate_parser().parse_args(by_module["verl_relift.evaluate"][2:])
    config = Arguments.parse(by_module["verl_relift.train"][2:]).compose("cpu")
    assert config.trainer.default_local_dir == str(pretrained.RUN) and config.trainer.total_training_steps == 4
    assert config.data.train_files == str(pretrained.DATA / "train.parquet")


def test_a_second_run_repeats_nothing_and_summarizes_the_same(commands):
    console = Console(record=True, file=io.StringIO(), width=200)
    pretrained.Pretrained([], Console(quiet=True)).go()
    first, count = (pretrained.RUN / "summary.json").read_text(), len(commands)
    (pretrained.folder_of(pretrained.SMOLLM2)).mkdir(parents=True)
    assert pretrained.Pretrained([], console).go() == []
    assert (len(commands), (pretrained.RUN / "summary.json").read_text()) == (count, first)
    summary, shown = json.loads(first), console.export_text()
    assert shown.count("done before") == 8
    assert (summary["base"]["accuracy"], summary["base"]["last_number"], summary["trained"]["accuracy"]) == (
        0.0,
        1.0,
        1.0,
    )
    assert summary["gain"] == 1.0 and summary["gain_interval"][0] > 0.7
    assert "right, if the last number counts" in shown and "accuracy +100.0% (95% interval" in shown
