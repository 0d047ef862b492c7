"""Methods whose demonstrations join the RL update, on the real stack: smoke runs, resume, and guidance off."""

import os
from pathlib import Path

import pytest
import torch

from tests.integration.test_training import prepared  # noqa: F401  a fixture
from verl_relift.testing.launch import differences, finish, records, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]

STEPS, QUESTIONS, ROLLOUTS = 2, 8, 4

# Rewards that differ within a group, although a random model solves nothing.
REWARD = """
def length_is_even(data_source, solution_str, ground_truth, extra_info):
    return float(len(solution_str) % 2 == 0)
"""
DP2 = (
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
)
LAYOUTS = {"TP2": (), "DP2": DP2}


@pytest.fixture
def smoke(prepared, tmp_path):  # noqa: F811
    """A function from a method to the records of a few steps of it."""

    def run(method: str, *overrides: str, folder: str | None = None) -> list[dict]:
        path = tmp_path / (folder or method)
        process = start(
            "smoke",
            path,
            f"method={method}",
            f"data.train_files={prepared}/data/train.parquet",
            f"data.val_files={prepared}/data/test.parquet",
            f"actor_rollout_ref.model.path={prepared}/model",
            f"trainer.total_training_steps={STEPS}",
            *overrides,
        )
        return finish(process, path)

    return run


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", ["luffy", "rl_plus", "srft"])
def test_a_demonstration_is_in_every_group(smoke, method, layout):
    for record in smoke(method, "relift.gradient_shares_every=1", *LAYOUTS[layout]):
        joined = record["method/demonstrations_joined"]
        assert 0 < joined <= QUESTIONS
        assert record["actor/demonstration_tokens"] == record["method/demonstration_tokens"]
        assert record["actor/grad_norm"] > 0.0 and record["actor/demonstration_gradient_share"] > 0.0
        assert record["actor/own_loss_share"] + record["actor/demonstration_loss_share"] == pytest.approx(1.0)
        assert record["critic/score/mean"] == 0.0  # demonstrations are no rollouts
        assert record["response_length/max"] <= 64


@pytest.mark.parametrize("rollouts", ["drop", "keep"])
@pytest.mark.parametrize("method", ["hpt", "superrl"])
def test_failed_questions_get_their_demonstrations(smoke, method, rollouts):
    """A random model fails them all, so with `drop` no rollout is left."""
    for record in smoke(method, f"method.rollouts={rollouts}"):
        assert record["method/gate_opened"] == QUESTIONS
        assert record["actor/demonstration_tokens"] == record["method/demonstration_tokens"] > 0
        assert record["actor/grad_norm"] > 0.0 and record["critic/score/mean"] == 0.0
        assert 0 < record["response_length/mean"] <= 64


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("method", "mu"), [("chord_mu", 0.9), ("chord_phi", 0.1)])
def test_demonstrations_of_the_whole_training_set_join_the_update(smoke, method, mu, layout):
    made = smoke(method, "relift.gradient_shares_every=1", *LAYOUTS[layout])
    assert made[0]["method/mu"] == pytest.approx(mu)
    for record in made:
        assert record["method/demonstrations_used"] == 8.0
        assert record["relift/sft_nll"] > 0.0 and record["actor/demonstration_gradient_share"] > 0.0
        assert (record["relift/sft_loss"] == pytest.approx(record["relift/sft_nll"])) == (method == "chord_mu")


@pytest.fixture
def even(tmp_path, monkeypatch) -> tuple[str, str]:
    """Overrides that reward answers of even length."""
    (tmp_path / "reward.py").write_text(REWARD)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    function = "reward.custom_reward_function"
    return f"{function}.path={tmp_path}/reward.py", f"{function}.name=length_is_even"


OFF = {
    "luffy": ("method.coeff=0", "method.clip=true", "actor_rollout_ref.actor.optim.clip_grad=0.7"),
    "srft": ("method.coeff=0", "actor_rollout_ref.actor.optim.clip_grad=0.7"),
    "hpt": ("method.coeff=0", "method.clip=true", "actor_rollout_ref.actor.optim.clip_grad=0.7"),
    "chord_mu": ("method.mu.peak=0", "method.mu.valley=0", "method.mu.decay_steps=0"),
}


def test_without_guidance_a_method_is_grpo_to_the_last_bit(smoke, even):
    grpo = smoke("grpo", *even)
    assert any(record["actor/grad_norm"] > 0.0 for record in grpo)
    for method, overrides in OFF.items():
        made = smoke(method, *even, *overrides)
        own = [{name: value for name, value in r.items() if not name.startswith("method/")} for r in made]
        assert differences(own, grpo) == [], method


def test_a_resumed_stream_draws_what_an_unbroken_run_draws(smoke, tmp_path):
    """The place in the training set is in the checkpoint."""
    saved = ("trainer.save_freq=1", "trainer.total_training_steps=3", "trainer.resume_mode=auto")
    whole = smoke("chord_phi", *saved, folder="whole")
    smoke("chord_phi", *saved[:1], "trainer.total_training_steps=1", folder="broken")
    smoke("chord_phi", *saved, folder="broken")
    assert differences(records(Path(tmp_path) / "broken"), whole) == []
