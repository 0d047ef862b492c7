"""The trainer's own parts that need no workers."""

import pytest
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_relift.checks import program_settings
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.run.composition import Arguments
from verl_relift.trainer import MethodTrainer
from verl_relift.verl_trainer import ResumableTrainer

AGENT_LOOP = ("relift.rollout.batched=false", "reward.num_workers=1")


@pytest.mark.parametrize(
    ("overrides", "opened", "kwargs"),
    [
        (AGENT_LOOP, "<think>\n", {"prompt_opens_thought": True}),
        (AGENT_LOOP, "", {"prompt_opens_thought": False}),
        (
            (*AGENT_LOOP, "+reward.custom_reward_function.reward_kwargs.thinking=required"),
            "<think>",
            {"prompt_opens_thought": True, "thinking": "required"},
        ),
        ((*AGENT_LOOP, "reward.custom_reward_function.path=mine.py"), "<think>", None),
        # Rollouts in batches are graded prompt by prompt.
        ((), "<think>", None),
    ],
)
def test_verls_reward_workers_are_told_how_prompts_end(monkeypatch, overrides, opened, kwargs):
    def tokenizer_of(trainer):
        trainer.tokenizer = build_tokenizer()
        trainer.tokenizer.chat_template += "{% if add_generation_prompt %}" + opened + "{% endif %}"

    monkeypatch.setattr(PPOTrainerSync, "_init_tokenizer", tokenizer_of)
    trainer = object.__new__(MethodTrainer)
    trainer.config = Arguments(overrides=overrides).compose("cpu")
    trainer.settings = program_settings(trainer.config)
    trainer._init_tokenizer()
    assert trainer.config.reward.custom_reward_function.get("reward_kwargs") == kwargs


def test_a_validation_that_fails_costs_no_checkpoint(tmp_path, monkeypatch):
    """The step's metrics are written and its checkpoint is put into use before the error is raised again."""

    class Trainer(ResumableTrainer):
        def make_step(self, metrics, timing_raw):
            metrics["relift/updates"] = 1
            return "rows"

    def fail(trainer):
        raise RuntimeError("the reward function does not know this data source")

    def compute(trainer, batch, metrics, timing_raw, global_steps, epoch):
        assert (batch, timing_raw, epoch) == ("rows", {"step": 2.0}, 1)
        metrics["training/global_step"] = global_steps

    monkeypatch.setattr(PPOTrainerSync, "_validate", fail)
    monkeypatch.setattr(PPOTrainerSync, "_compute_metrics", compute)
    logged = []
    trainer = object.__new__(Trainer)
    trainer._startup, trainer.steps_per_epoch, trainer.global_steps = None, 3, 4
    trainer.timing_raw = {"step": 2.0}
    trainer._saved_step = trainer._committed_step = None
    trainer._metrics_file = type("Log", (), {"log": lambda self, data, step: logged.append((step, data))})()
    with pytest.raises(RuntimeError, match="data source"):
        trainer._validate()  # before the first step
    trainer.step({}, trainer.timing_raw)
    with pytest.raises(RuntimeError, match="data source"):
        trainer._validate()  # after a step without a checkpoint
    assert not logged
    trainer._saved_step = 4
    with pytest.raises(RuntimeError, match="data source"):
        trainer._validate()
    assert logged == [(4, {"relift/updates": 1, "training/global_step": 4})]
