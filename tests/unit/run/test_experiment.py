"""Which settings may change between a checkpoint and the run that resumes from it."""

import json
import shutil
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from verl_relift.run import checkpoints, experiment, resume
from verl_relift.run import folder as runfolder
from verl_relift.run.checkpoints import CheckpointError
from verl_relift.run.composition import Arguments
from verl_relift.run.experiment import Free, Record, changes, reason_to_change, refused
from verl_relift.run.redact import HIDDEN

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
# Each changes the experiment.
EXPERIMENTS = [
    ("data.train_batch_size=8",),
    (f"{ROLLOUT}.n=4",),
    ("method.sft.batch_size=8",),
    ("method.trigger.max_accuracy=0.5",),
    ("method.sft.optimizer=separate",),
    ("method.demonstrations.verify=false",),
    ("data.train_files=elsewhere.parquet",),
    ("data.max_response_length=128",),
    ("data.seed=2",),
    (f"{ACTOR}.megatron.seed=7",),
    ("actor_rollout_ref.model.path=another",),
    (f"{ACTOR}.clip_ratio_high=0.28",),
    (f"{ACTOR}.optim.betas=[0.9,0.95]",),
    (f"{ACTOR}.optim.weight_decay=0.1",),
    (f"{ACTOR}.ppo_mini_batch_size=8",),
    (f"{ACTOR}.use_kl_loss=true",),
    (f"{ROLLOUT}.temperature=0.7",),
    (f"{ACTOR}.megatron.dtype=bfloat16",),
    ("reward.custom_reward_function.path=mine.py",),
    ("algorithm.norm_adv_by_std_in_grpo=true",),
    ("relift.rollout.seeded=false",),
    (f"+{ACTOR}.megatron.override_transformer_config.softcap=3",),
    ("+data.apply_chat_template_kwargs.enable_thinking=true",),
]
# None of these does.
SAME = [
    ("trainer.total_training_steps=200", Free.LENGTH),
    ("trainer.total_epochs=2", Free.LENGTH),
    (f"{ACTOR}.optim.lr=1e-6", Free.LENGTH),
    (f"{ACTOR}.optim.lr_decay_style=cosine", Free.LENGTH),
    ("method.sft.lr=1e-6", Free.LENGTH),
    ("trainer.logger=[console,tensorboard]", Free.RECORDS),
    ("trainer.save_freq=10", Free.RECORDS),
    ("trainer.max_actor_ckpt_to_keep=2", Free.RECORDS),
    ("trainer.experiment_name=other", Free.RECORDS),
    ("trainer.default_local_dir=elsewhere", Free.RECORDS),
    ("trainer.resume_mode=auto", Free.RECORDS),
    ("relift.gradient_shares_every=10", Free.RECORDS),
    ("trainer.test_freq=5", Free.VALIDATION),
    ("data.val_files=other.parquet", Free.VALIDATION),
    (f"{ROLLOUT}.val_kwargs.n=4", Free.VALIDATION),
    ("trainer.n_gpus_per_node=4", Free.DEVICES),
    (f"{ACTOR}.megatron.tensor_model_parallel_size=1", Free.DEVICES),
    (f"{ACTOR}.megatron.optimizer_offload=true", Free.SPEED),
    (f"{ACTOR}.ppo_max_token_len_per_gpu=4096", Free.SPEED),
    (f"{ROLLOUT}.gpu_memory_utilization=0.8", Free.SPEED),
    ("data.dataloader_num_workers=4", Free.SPEED),
    ("relift.speed_patches=false", Free.SPEED),
]


# Groups with most of the interpolations, which take a while to resolve, and no part in most tests.
LEFT_OUT = ("critic", "reward_model", "distillation", "global_profiler", "skip", "actor_rollout_ref.ref")
LEFT_OUT += ("actor_rollout_ref.actor.profiler", "actor_rollout_ref.rollout.profiler", "reward.reward_model")


def whole(*overrides: str):
    """A configuration as from the command line."""
    return Arguments("quickstart", None, overrides).compose("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    path.write_bytes(b"rows")
    return path


@pytest.fixture(scope="module")
def compose(data):
    base = whole(f"data.train_files={data}")
    OmegaConf.set_struct(base, False)
    for group in LEFT_OUT:
        parent, _, name = group.rpartition(".")
        del (OmegaConf.select(base, parent) if parent else base)[name]

    def compose(*overrides: str):
        config = base.copy()
        config.merge_with_dotlist([override.lstrip("+") for override in overrides])
        return config

    return compose


@pytest.fixture(scope="module")
def record(compose):
    return Record.of(compose())


def test_the_same_settings_have_no_changes(record, compose):
    assert changes(record, compose()) == []


@pytest.mark.parametrize("overrides", EXPERIMENTS, ids=lambda one: one[0])
def test_another_experiment_is_refused_unless_accepted(record, compose, overrides):
    key = overrides[0].split("=")[0].lstrip("+")
    found = changes(record, compose(*overrides))
    assert [change.key for change in refused(record, found, [])] == [key]
    assert refused(record, found, [key]) == refused(record, found, [key.rpartition(".")[0]]) == []
    assert refused(record, found, [key[:-1], f"{key}x"]) != []


@pytest.mark.parametrize(("override", "reason"), SAME, ids=lambda one: str(one))
def test_the_same_experiment_may_go_on(record, compose, override, reason):
    found = changes(record, compose(override))
    assert override.split("=")[0] in [change.key for change in found]
    assert reason_to_change(override.split("=")[0]) is reason
    assert refused(record, found, []) == []


def test_a_change_names_both_values(record, compose):
    [change] = changes(record, compose("trainer.save_freq=10"))
    assert str(change) == "trainer.save_freq=10 (was 80)"
    [change] = changes(record, compose("trainer.logger=[console,wandb]"))
    assert str(change) == 'trainer.logger=["console", "wandb"] (was ["tensorboard"])'


def test_what_follows_from_another_setting_is_not_a_change_of_its_own():
    """n is in three places, the response length in five."""
    record = Record.of(whole())
    config = whole(f"{ROLLOUT}.n=4", "data.max_response_length=32", "trainer.n_gpus_per_node=4")
    keys = ["data.max_response_length", f"{ROLLOUT}.n", "trainer.n_gpus_per_node"]
    assert sorted(change.key for change in changes(record, config)) == sorted(keys)


def test_a_value_that_followed_before_and_is_set_now_is_a_change(record, compose):
    assert [change.key for change in changes(record, compose(f"{ROLLOUT}.max_model_len=64"))] == [
        f"{ROLLOUT}.max_model_len"
    ]
    explicit = Record.of(compose("method.demonstrations.max_tokens=10"))
    found = [change.key for change in changes(explicit, compose())]
    assert "method.demonstrations.max_tokens" in found


def test_the_layout_may_change_only_where_the_checkpoint_can_follow(compose):
    fixed = Record.of(compose(f"{ACTOR}.megatron.dist_ckpt_optim_fully_reshardable=false"))
    same = (f"{ACTOR}.megatron.dist_ckpt_optim_fully_reshardable=false",)
    split = compose(*same, f"{ACTOR}.megatron.tensor_model_parallel_size=1")
    assert [c.key for c in refused(fixed, changes(fixed, split), [])] == [
        f"{ACTOR}.megatron.tensor_model_parallel_size"
    ]
    more = compose(*same, "trainer.n_gpus_per_node=4")  # data parallel
    assert refused(fixed, changes(fixed, more), []) == []


def test_data_is_known_by_its_contents(compose, data, tmp_path):
    before = Record.of(compose())
    moved = tmp_path / "moved.parquet"
    shutil.copy(data, moved)
    assert changes(before, compose(f"data.train_files={moved}")) == []
    moved.write_bytes(b"rowz")
    assert [c.key for c in changes(before, compose(f"data.train_files={moved}"))] == ["data.train_files"]
    at_first = Record.of(compose(f"data.train_files=[{data},{moved}]"))
    moved.write_bytes(b"other")
    [change] = refused(at_first, changes(at_first, compose(f"data.train_files=[{data},{moved}]")), [])
    assert change.key == "data.train_files" and "other contents" in str(change)


def test_every_pattern_stands_for_a_setting(compose):
    """Except those of settings that exist only when they are added with `+`."""
    added = {"trainer.wandb_proxy", "*.override_ddp_config.overlap_*", "*.override_ddp_config.bucket_size"}
    keys = [*experiment._settings(whole("platform=cuda")), *experiment._settings(whole())]
    for reason, patterns in experiment._FREE.items():
        unused = [p for p in patterns if not any(fnmatchcase(key, p) for key in keys)]
        assert [p for p in unused if not any(fnmatchcase(p, one) or p == one for one in added)] == [], reason


def test_no_setting_of_a_loss_of_sampling_or_of_the_data_is_free():
    record = Record.of(whole())
    never = ("*loss*", "*clip_ratio*", "*seed", "*temperature", "*.betas", "*weight_decay*", "algorithm.*", "*prompt*")
    wrong = [k for k in record.settings for p in never if fnmatchcase(k, p) and reason_to_change(k)]
    allowed = ("critic.", "data.val", f"{ROLLOUT}.val_kwargs.", "reward.reward_model", f"{ROLLOUT}.prometheus")
    assert [key for key in wrong if not key.startswith(allowed)] == ["data.filter_overlong_prompts_workers"]


# ---- what a command resumes from -------------------------------------------------------------------------------------


def save(compose, run: Path, step: int, *overrides: str, steps_per_epoch: int | None = 10) -> Path:
    config = compose(f"trainer.default_local_dir={run}", *overrides)
    folder = checkpoints.begin(run, step)
    (folder / "relift").mkdir()
    (folder / checkpoints.STATE_FILE).write_text(json.dumps({"method": config.method.name}))
    Record.of(config, steps_per_epoch).write(folder)
    for path in (run, folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return checkpoints.commit(run, step)


def find(compose, run: Path, *overrides: str):
    return resume.find(compose("trainer.resume_mode=auto", f"trainer.default_local_dir={run}", *overrides))


def test_without_a_checkpoint_a_run_starts_from_step_0(compose, tmp_path):
    start = find(compose, tmp_path)
    assert start.checkpoint is None and not start.is_done and start.lines() == []
    save(compose, tmp_path, 7)
    assert find(compose, tmp_path, "trainer.resume_mode=disable").checkpoint is None


def test_a_resumed_run_says_from_where_and_what_is_different(compose, tmp_path):
    save(compose, tmp_path, 7)
    lines = find(compose, tmp_path, "trainer.save_freq=5", f"{ACTOR}.optim.lr=1e-6").lines()
    assert lines[0] == f"resuming from step 7 of 80 in {tmp_path}"
    assert f"changed since: {ACTOR}.optim.lr=1e-06 (was 5e-05)" in lines
    assert "changed since: trainer.save_freq=5 (was 80)" in lines


@pytest.mark.parametrize(
    ("overrides", "total"),
    [
        (("trainer.total_training_steps=7",), 7),
        (("trainer.total_training_steps=5",), 5),
        (("trainer.total_training_steps=null", "trainer.total_epochs=1"), 7),
        (("trainer.total_epochs=1",), 7),
    ],
)
def test_a_finished_run_is_done(compose, tmp_path, overrides, total):
    save(compose, tmp_path, 7, steps_per_epoch=7)
    start = find(compose, tmp_path, *overrides)
    assert start.is_done and start.total == total
    [line] = start.lines()
    assert line.startswith(f"{total} of {total} steps are done in {tmp_path}")
    assert not find(compose, tmp_path, "trainer.total_training_steps=8").is_done


def test_how_many_steps_an_epoch_has_is_not_known_of_other_data(compose, tmp_path):
    save(compose, tmp_path, 7, steps_per_epoch=7)
    overrides = ("trainer.total_training_steps=null", "trainer.total_epochs=1", "data.train_batch_size=8")
    start = find(compose, tmp_path, *overrides, f"{experiment.ACCEPT}=[data.train_batch_size]")
    assert start.total is None and not start.is_done


def test_another_experiment_is_refused_in_one_line(compose, tmp_path):
    save(compose, tmp_path, 7)
    with pytest.raises(CheckpointError) as refusal:
        find(compose, tmp_path, f"{ROLLOUT}.n=4", "data.seed=9")
    assert str(refusal.value) == (
        f"{tmp_path}/global_step_7 is of another experiment: {ROLLOUT}.n=4 (was 8), data.seed=9 (was 1); choose "
        f"another trainer.default_local_dir, start over with trainer.resume_mode=disable, or continue nevertheless "
        f"with 'relift.resume.accept_changes=[{ROLLOUT}.n,data.seed]'"
    )
    start = find(compose, tmp_path, f"{ROLLOUT}.n=4", "data.seed=9", f"{experiment.ACCEPT}=[{ROLLOUT}.n,data.seed]")
    assert start.step == 7


def test_the_record_of_the_checkpoint_counts_and_not_that_of_the_last_start(compose, tmp_path):
    """A run with other settings was started in the folder, and killed before it saved anything."""
    save(compose, tmp_path, 7)
    runfolder.write_config(tmp_path, compose("data.seed=9"))
    assert find(compose, tmp_path).step == 7
    with pytest.raises(CheckpointError, match=r"data\.seed=9 \(was 1\)"):
        find(compose, tmp_path, "data.seed=9")


def test_a_checkpoint_without_a_record_is_compared_with_its_runs_configuration(compose, tmp_path):
    (save(compose, tmp_path, 7) / experiment.RECORD).unlink()
    assert find(compose, tmp_path).changed == []  # nothing to compare with
    runfolder.write_config(tmp_path, compose())
    assert find(compose, tmp_path).step == 7
    with pytest.raises(CheckpointError, match=r"data\.seed=9 \(was 1\)"):
        find(compose, tmp_path, "data.seed=9")


def test_a_checkpoint_of_another_folder_is_compared_too(compose, tmp_path):
    folder = save(compose, tmp_path / "old", 7)
    path = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={folder}")
    assert find(compose, tmp_path / "new", *path).step == 7
    with pytest.raises(CheckpointError, match=r"data\.seed=9"):
        find(compose, tmp_path / "new", *path, "data.seed=9")


def test_another_methods_checkpoint_is_refused_by_its_name(compose, tmp_path):
    save(compose, tmp_path, 7)
    with pytest.raises(CheckpointError, match=r"method=grpo can't resume .* which method=relift made"):
        find(compose, tmp_path, "method.name=grpo")


def test_somebody_elses_checkpoint_is_refused_unless_trusted(compose, tmp_path):
    folder = save(compose, tmp_path, 7)
    folder.chmod(0o777)
    with pytest.raises(CheckpointError, match=r"can be written by everybody.*relift\.resume\.trust_others=true"):
        find(compose, tmp_path)
    assert find(compose, tmp_path, "relift.resume.trust_others=true").step == 7


def test_no_secret_is_in_what_a_run_writes(compose, tmp_path):
    secrets = (
        "+ray_kwargs.ray_init.runtime_env.env_vars.WANDB_API_KEY=0123456789abcdef",
        "method.teacher.base_url=https://me:pa55word@host/v1",
    )
    folder = save(compose, tmp_path, 7, *secrets)
    runfolder.write_config(tmp_path, compose(*secrets))
    for path in (folder / experiment.RECORD, tmp_path / runfolder.CONFIG):
        text = path.read_text()
        assert "0123456789abcdef" not in text and "pa55word" not in text and HIDDEN in text
    assert find(compose, tmp_path, *secrets).step == 7
    assert OmegaConf.load(tmp_path / runfolder.CONFIG).data.seed == 1


def test_files_follow_the_umask(compose, tmp_path):
    import os

    before = os.umask(0o077)
    try:
        runfolder.write_config(tmp_path, compose())
    finally:
        os.umask(before)
    assert (tmp_path / runfolder.CONFIG).stat().st_mode & 0o777 == 0o600
