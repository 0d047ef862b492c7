"""What a training command says first and last."""

import shlex
from pathlib import Path

import pytest

from verl_relift.evaluate.__main__ import _parser, _values
from verl_relift.rewards import verl_hook
from verl_relift.run import announce, checkpoints
from verl_relift.run.composition import Arguments
from verl_relift.run.resume import Resume

ROOT = Path(__file__).parents[3]


def compose(*overrides, name="smoke"):
    return Arguments(name, None, ("actor_rollout_ref.model.path=m", *overrides)).compose("cpu")


def commands(lines):
    """The words of every command in these lines."""
    found = [line[line.index("python -m ") :] for line in lines if "python -m " in line]
    return [shlex.split(command) for command in found]


def test_a_new_run_says_what_it_is_and_how_to_watch_and_stop_it(tmp_path):
    lines = announce.opening(compose(f"trainer.default_local_dir={tmp_path}"), Resume(), rollouts=True)
    text = "\n".join(lines)
    assert len(lines) <= 6
    assert lines[0] == "relift: m on 2 CPU processes (tensor parallel 2), 8 questions x 4 answers a step"
    assert lines[1] == f"a new run of 6 steps in {tmp_path}"
    said = ["saves every 3 steps, validates never", f"{tmp_path}/logs/train.log", "tensorboard --logdir"]
    said += [f"verl_relift.report {tmp_path} --watch", "Ctrl-C", "kill -USR1", "the same command resumes"]
    for part in said:
        assert part in text, part


def test_a_resumed_run_says_from_where(tmp_path):
    resumed = Resume(tmp_path / "global_step_3", 3, 6, [])
    lines = announce.opening(compose(f"trainer.default_local_dir={tmp_path}"), resumed, rollouts=True)
    assert lines[1] == f"resuming from step 3 of 6 in {tmp_path}"


def test_a_checkpoint_that_is_not_used_is_named(tmp_path):
    checkpoints.begin(tmp_path, 4)
    checkpoints.commit(tmp_path, 4)
    config = compose(f"trainer.default_local_dir={tmp_path}", "trainer.resume_mode=disable")
    text = "\n".join(announce.opening(config, Resume(), rollouts=False))
    assert "step 4, which is there, is not used (trainer.resume_mode=disable)" in text
    assert "trainer.resume_mode=auto resumes" in text and "answers" not in text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("trainer.n_gpus_per_node=1", "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1"),
         "1 CPU process"),
        (("trainer.n_gpus_per_node=4",), "4 CPU processes (tensor parallel 2, data parallel 2)"),
        (("platform=cuda", "trainer.nnodes=2"), "16 GPUs of 2 nodes (tensor parallel 2, data parallel 8)"),
        (("platform=cuda", "trainer.n_gpus_per_node=1", "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1"
          ), "1 GPU"),
    ],
)  # fmt: skip
def test_devices(overrides, said):
    assert announce.devices(compose(*overrides)) == said


def test_a_finished_run_says_what_comes_next_in_commands_that_exist(tmp_path):
    run = tmp_path / "a run"  # with a space
    run.mkdir()
    checkpoints.begin(run, 6)
    checkpoints.commit(run, 6)
    config = compose(f"trainer.default_local_dir='{run}'", "data.val_files=[a.parquet,b.parquet]")
    records = {
        "first": {"step": 1, "critic/score/mean": 0.1},
        "last": {"step": 6, "critic/score/mean": 0.5},
        "validation": {"step": 4, "val-core/a/acc/mean@1": 0.25},
    }
    lines = announce.closing(config, records, 83.0)
    assert lines[0] == "done: step 6 in 1:23, reward 0.10 to 0.50, validation accuracy 0.250 at step 4"
    report, evaluate, export = commands(lines)
    assert report[2:] == ["verl_relift.report", str(run)]
    assert evaluate[evaluate.index("--data") + 1 :][:2] == ["a.parquet", "b.parquet"]
    assert evaluate[evaluate.index("--max-tokens") + 1] == "64"
    assert export[export.index("--checkpoint") + 1] == f"{run}/global_step_6"
    for command in (report, evaluate, export):
        assert (ROOT / command[2].replace(".", "/") / "__main__.py").exists()


def test_a_resumed_run_says_which_steps_its_time_is_for(tmp_path):
    config = compose(f"trainer.default_local_dir={tmp_path}")
    records = {"first": {"step": 11}, "last": {"step": 24}}
    assert announce.closing(config, records, 100.0)[0] == "done: step 24, steps 11 to 24 in 1:40"
    for records in ({"first": {"step": 1}, "last": {"step": 24}}, {"last": {"step": 24}}):
        assert announce.closing(config, records, 9.0)[0] == "done: step 24 in 0:09"


def test_the_evaluation_that_comes_next_grades_as_the_run_did(tmp_path):
    checkpoints.begin(tmp_path, 6)
    checkpoints.commit(tmp_path, 6)

    def evaluation(*overrides):
        config = compose(f"trainer.default_local_dir={tmp_path}", "data.val_files=a.parquet", *overrides)
        return commands(announce.closing(config, {}, 1.0))[1]

    assert "--reward-function" not in evaluation()
    own = ("path=my/reward.py", "name=reward", "reward_kwargs={bonus: 0.2, unit: km}")
    own = [f"{'+' * ('kwargs' in value)}reward.custom_reward_function.{value}" for value in own]
    command = evaluation(*own, "relift.reward.correct_from=1.0")
    options = _parser().parse_args(command[3:])
    assert options.reward_function == "my/reward.py:reward"
    assert options.correct_from == 1.0
    assert _values("--reward-kwargs", options.reward_kwargs) == {"bonus": 0.2, "unit": "km"}


@pytest.mark.parametrize(
    ("overrides", "named", "kwargs"),
    [
        (("path=pkg://verl_relift.rewards.verl_hook",), None, {}),
        (("path=pkg://my.rewards", "name=reward"), "pkg://my.rewards:reward", {}),
        (("path=pkg://my.rewards", "name=reward", "reward_kwargs={unit: km}"), "pkg://my.rewards:reward",
         {"unit": "km"}),
        (("path=null",), "pkg://verl.utils.reward_score:default_compute_score", {}),
        (("reward_kwargs={thinking: required, conventions: [boxed, phrase]}",), f"{verl_hook.PATH}:compute_score",
         {"thinking": "required", "conventions": ["boxed", "phrase"]}),
    ],
)  # fmt: skip
def test_the_evaluation_that_comes_next_names_a_function_of_a_package(tmp_path, overrides, named, kwargs):
    checkpoints.begin(tmp_path, 6)
    checkpoints.commit(tmp_path, 6)
    own = [f"{'+' * ('kwargs' in value)}reward.custom_reward_function.{value}" for value in overrides]
    config = compose(f"trainer.default_local_dir={tmp_path}", "data.val_files=a.parquet", *own)
    command = commands(announce.closing(config, {}, 1.0))[1]
    options = _parser().parse_args(command[3:])
    assert options.reward_function == named
    assert _values("--reward-kwargs", options.reward_kwargs) == kwargs
    assert announce.GRADER == verl_hook.PATH


def test_the_evaluation_that_comes_next_has_the_runs_arguments_of_the_chat_template(tmp_path):
    checkpoints.begin(tmp_path, 6)
    checkpoints.commit(tmp_path, 6)
    template = "+data.apply_chat_template_kwargs={enable_thinking: false, tone: dry}"
    config = compose(f"trainer.default_local_dir={tmp_path}", "data.val_files=a.parquet", template)
    options = _parser().parse_args(commands(announce.closing(config, {}, 1.0))[1][3:])
    assert _values("--chat-template-kwargs", options.chat_template_kwargs) == {"enable_thinking": False, "tone": "dry"}


def test_a_run_that_is_ended_says_what_it_keeps(tmp_path):
    config = compose(f"trainer.default_local_dir={tmp_path}")
    said = "stopping now, nothing more is saved; there is no checkpoint yet, so the same command starts again"
    assert announce.ending(config, 0) == said
    assert announce.ending(config, 1) == f"{said}, and makes step 1 again"
    checkpoints.begin(tmp_path, 3)
    checkpoints.commit(tmp_path, 3)
    assert announce.ending(config, 3).endswith("; the same command resumes from step 3")
    assert announce.ending(config, 7).endswith("; the same command resumes from step 3, and makes steps 4 to 7 again")


def test_a_run_that_ends_early_says_from_where_it_resumes(tmp_path):
    config = compose(f"trainer.default_local_dir={tmp_path}")
    assert announce.resumes_from(config) == "there is no checkpoint yet, so the same command starts again"
    checkpoints.begin(tmp_path, 3)
    checkpoints.commit(tmp_path, 3)
    assert announce.resumes_from(config) == "the same command resumes from step 3"
    other = compose(f"trainer.default_local_dir={tmp_path}", "trainer.resume_mode=disable")
    assert announce.resumes_from(other) == "the same command with trainer.resume_mode=auto resumes from step 3"
