"""Methods of several runs: what each stage is told, from where it starts, and when it is not run again."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_relift import stages
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.run.composition import Arguments
from verl_relift.settings import SettingsError

COMMON = ("method=sft_then_rl", "trainer.total_training_steps=4", "trainer.save_freq=2", "data.seed=5")


def arguments(folder: Path, *overrides: str) -> Arguments:
    return Arguments("quickstart", None, (*COMMON, f"trainer.default_local_dir={folder}/run", *overrides))


def runs(command: Arguments):
    of_stages = list(stages.stage_arguments(command, command.compose("cpu")))
    return [(stage, own.compose("cpu")) for stage, own in of_stages], [own for _, own in of_stages]


@pytest.fixture
def trained(monkeypatch) -> list[list[str]]:
    """Stands in for training: notes its command, and leaves the checkpoint of the last step."""
    commands = []

    def supervise(command, folder, max_restarts):
        commands.append(command[3:])
        steps = next(o.split("=")[1] for o in reversed(command) if o.startswith("trainer.total_training_steps="))
        (folder / f"global_step_{steps}").mkdir(parents=True)
        (folder / "latest_checkpointed_iteration.txt").write_text(steps)
        return 0

    monkeypatch.setattr(stages.restarts, "supervise", supervise)
    return commands


def test_each_stage_has_its_method_folder_and_overrides_and_the_rest_in_common(tmp_path):
    command = arguments(tmp_path, "method.then.method=relift", "method.first.overrides=['method.sft.lr=1e-3']")
    (_, first), (_, second) = runs(command)[0]
    assert (first.method.name, second.method.name) == ("sft", "relift")
    assert first.method.sft.lr == 1e-3 and second.method.sft.lr == 3e-4
    assert first.data.seed == second.data.seed == 5
    assert first.trainer.default_local_dir == f"{tmp_path}/run/sft"
    assert second.trainer.default_local_dir == f"{tmp_path}/run/rl"


def test_the_second_stage_starts_from_the_first_ones_weights(tmp_path, trained):
    assert stages.run_stages(*runs(arguments(tmp_path)), 0) == 0
    first, second = trained
    assert not any(o.startswith("actor_rollout_ref.model.path=") for o in first)
    assert f"actor_rollout_ref.model.path={tmp_path}/run/sft/global_step_4/actor/model/huggingface" in second


def test_what_is_done_is_said_and_not_run_again(tmp_path, trained, capsys):
    command = arguments(tmp_path, "trainer.resume_mode=auto")
    stages.run_stages(*runs(command), 0)
    assert len(trained) == 2 and stages.run_stages(*runs(command), 0) == 0
    assert len(trained) == 2 and "stage rl: its 4 steps are done" in capsys.readouterr().err


def test_without_resuming_every_stage_runs(tmp_path, trained):
    command = arguments(tmp_path, "trainer.resume_mode=disable")
    (tmp_path / "run/sft/global_step_9").mkdir(parents=True)
    (tmp_path / "run/sft/latest_checkpointed_iteration.txt").write_text("9")
    assert stages.run_stages(*runs(command), 0) == 0 and len(trained) == 2


def test_a_stage_that_fails_or_ends_early_is_the_last(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stages.restarts, "supervise", lambda *_: 75)
    assert stages.run_stages(*runs(arguments(tmp_path)), 0) == 75
    monkeypatch.setattr(stages.restarts, "supervise", lambda *_: 0)
    assert stages.run_stages(*runs(arguments(tmp_path)), 0) == 1
    assert "stage sft: ended after step 0 of 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("trainer.save_freq=-1", "stage sft: trainer.save_freq=-1: a stage must save its last step"),
        ("trainer.total_training_steps=null", "stage sft: trainer.total_training_steps: a stage needs a number"),
        ("trainer.resume_mode=resume_path", "stage sft: trainer.resume_mode=resume_path: a stage resumes from"),
        ("method.then.overrides=['relift.speed_patches=false']", "stage rl: relift.speed_patches acts on all stages"),
        ("method.then.overrides=['trainer.use_v1=false']", "stage rl: trainer.use_v1=false"),
        ("method.first.overrides=['trainer.save_freq=x']", "stage sft: trainer.save_freq=x must be a whole number"),
        (
            "method.then.overrides=['data.max_response_length=8k']",
            "stage rl: data.max_response_length=8k must be",
        ),
        ("data.train_batch_size=8k", "stage sft: data.train_batch_size=8k must be a whole number"),
        ("method.first.overrides=['method.sft.lr=-1']", "stage sft: method.sft.lr=-1.0 must be positive"),
    ],
)
def test_a_stage_that_cannot_work_is_named_before_the_first_one_starts(tmp_path, override, problem):
    problems = stages.stage_problems(runs(arguments(tmp_path, override))[0])
    assert any(line.startswith(problem) for line in problems), problems


def test_a_method_of_one_run_has_no_stages(tmp_path):
    assert runs(arguments(tmp_path, "method=relift"))[0] == []


# ---- the budget of another run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, tuple[str, ...]]:
    """A folder for runs, and data with a tokenizer: every second question has a solution of 9 characters."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    rows = [
        {
            "prompt": [{"role": "user", "content": "1+1=?"}],
            "target": [{"role": "assistant", "content": "\\boxed{2}"}] if n % 2 else None,
        }
        for n in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    made = {"relift/sft_demonstrations": 48, "relift/sft_tokens": 48 * 40, "method/second_round_tokens": 48 * 40}
    (folder / "metrics.jsonl").write_text(json.dumps(made) + "\n")
    return folder, (f"data.train_files={folder}/train.parquet", f"actor_rollout_ref.model.path={folder}/model")


@pytest.mark.parametrize("by", ["demonstrations", "tokens", "operations"])
def test_the_first_stage_spends_what_another_run_has_spent(by, small, tmp_path):
    folder, data = small
    command = arguments(tmp_path, *data, f"method.first.match={folder}", f"method.first.by={by}")
    (_, first), (_, second) = runs(command)[0]
    tokenizer = build_tokenizer()
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1=?"}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    each = len(prompt) + len(tokenizer.encode("\\boxed{2}", add_special_tokens=False)) + 1
    a_step = 16 / 2  # half of the questions have one
    expected = {"demonstrations": 48 / a_step, "tokens": 48 * 40 / (a_step * each)}
    expected["operations"] = expected["tokens"] * (6 + 2) / 6
    assert first.trainer.total_training_steps == round(expected[by]) and second.trainer.total_training_steps == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method.first.match=/nowhere"],
            r"method\.first\.match=/nowhere: .*metrics\.jsonl.*; name the folder of a run",
        ),
        (["method.first.match={folder}/grpo"], r"the run has counted no demonstrations that it trained on; name"),
        (["method.first.match={folder}", "data.train_files=/none.parquet"], r"/none\.parquet.*; name the folder"),
        (
            ["method.first.match={folder}", "data.train_files={folder}/bare.parquet"],
            r"no demonstration in column target",
        ),
        (
            ["method.first.match={folder}", "method.first.overrides=['trainer.total_training_steps=3']"],
            r"both say how many steps the stage makes; leave one out",
        ),
        (
            ["method.first.match={folder}", "method.first.by=steps"],
            r"must be one of demonstrations, tokens, operations",
        ),
    ],
)
def test_a_budget_that_cannot_be_matched_is_one_line(overrides, message, small, tmp_path):
    folder, data = small
    (folder / "grpo").mkdir(exist_ok=True)
    (folder / "grpo" / "metrics.jsonl").write_text('{"step": 1}\n')
    bare = pq.read_table(folder / "train.parquet").drop_columns(["target"])
    pq.write_table(bare, folder / "bare.parquet")
    command = arguments(tmp_path, *data, *(override.format(folder=folder) for override in overrides))
    with pytest.raises(SettingsError, match=message) as error:
        runs(command)
    assert "\n" not in str(error.value)
