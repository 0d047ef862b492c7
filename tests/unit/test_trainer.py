"""The trainer's own parts that need no workers."""

import pytest
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_relift.checks import program_settings
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.run.composition import Arguments
from verl_relift.trainer import MethodTrainer

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
