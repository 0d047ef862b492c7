"""The seam on the real stack: what a method says reaches the update, and what it doesn't say changes nothing."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.integration.test_training import prepared  # noqa: F401  a fixture
from verl_relift.testing.launch import differences, finish, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]

ROOT = Path(__file__).parents[2]

METHODS = {
    # Every hook is there, and none changes anything.
    "plain": """
class Plain(Method):
    weights = {Role.OWN: lambda token: 1.0 + 0.0 * token.log_prob}

    def prompts(self, questions, step):
        return super().prompts(questions, step)

    def retry(self, groups, step, attempt):
        return []

    def edit(self, groups, step):
        return list(groups)

    def coefficients(self, step):
        return {Role.OWN: 1.0}
""",
    # Leaves out a rollout of every second question; the metrics are those of all.
    "fewer": """
class Fewer(Method):
    weights = {Role.OWN: lambda token: 0.0 * token.log_prob}

    def prompts(self, questions, step):
        return super().prompts(questions, step)

    def edit(self, groups, step):
        return [Group(g.prompt, g.rollouts[i % 2 :]) for i, g in enumerate(groups)]

    def supervised(self, groups, step):
        self.seen = sum(len(group.rollouts) for group in groups)
        return super().supervised(groups, step)

    def metrics(self):
        return {"method/seen": self.seen}
""",
}
# Rewards that differ within a group although a random model solves nothing.
REWARD = """
def length_is_even(data_source, solution_str, ground_truth, extra_info):
    return float(len(solution_str) % 2 == 0)
"""
HEAD = "from ..types import Group, Role\nfrom .base import Method\n\n"


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A folder with a copy of the package that has the methods above."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "verl_relift", copy / "verl_relift", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "reward.py").write_text(REWARD)
    registry = copy / "verl_relift/methods/registry.py"
    for name, source in METHODS.items():
        (copy / f"verl_relift/methods/{name}.py").write_text(HEAD + source)
        (copy / f"verl_relift/config/method/{name}.yaml").write_text(f"name: {name}\n")
        first, line = "METHODS: dict[str, str] = {\n", f'    "{name}": ".{name}:{name.title()}",\n'
        registry.write_text(registry.read_text().replace(first, first + line))
    return copy


@pytest.fixture
def train(extended, prepared, tmp_path, monkeypatch):  # noqa: F811
    """A function from a method to the records of three steps of it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(extended), os.environ.get("PYTHONPATH", "")]))

    def run(method: str, *overrides: str) -> list[dict]:
        folder = tmp_path / method
        process = start(
            "smoke",
            folder,
            f"method={method}",
            f"data.train_files={prepared}/data/train.parquet",
            f"data.val_files={prepared}/data/test.parquet",
            f"actor_rollout_ref.model.path={prepared}/model",
            "trainer.total_training_steps=3",
            f"reward.custom_reward_function.path={extended}/reward.py",
            "reward.custom_reward_function.name=length_is_even",
            *overrides,
            cwd=extended,
        )
        return finish(process, folder)

    return run


def test_a_method_whose_hooks_change_nothing_is_bit_equal_to_grpo(train):
    plain, grpo = train("plain"), train("grpo")
    assert differences(plain, grpo) == []
    assert any(record["actor/grad_norm"] > 0.0 for record in grpo)


@pytest.mark.parametrize("layout", ["TP2", "DP2"])
def test_rollouts_left_out_and_weights_reach_the_update(train, layout):
    """Two data-parallel ranks, padding included; tokens of weight 0 give no gradient."""
    one = ("actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",) if layout == "DP2" else ()
    one += ("actor_rollout_ref.rollout.tensor_model_parallel_size=1",) if layout == "DP2" else ()
    records = train("fewer", "actor_rollout_ref.actor.entropy_coeff=0.0", *one)
    for record in records:
        assert record["method/seen"] == 8 * 4
        assert record["actor/grad_norm"] == 0.0
        assert record["critic/score/mean"] * 32 == pytest.approx(round(record["critic/score/mean"] * 32))
