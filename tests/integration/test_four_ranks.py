"""Every method on two tensor-parallel by two data-parallel ranks, with two vLLM servers."""

import math

import pytest
import torch

from tests.integration.test_guided_smoke import GUIDED, task  # noqa: F401  a fixture
from tests.integration.test_training import prepared  # noqa: F401  a fixture
from verl_relift.methods.registry import METHODS
from verl_relift.testing.launch import finish, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]

STEPS = 2
STAGED = {"sft_then_rl"}  # its stages are methods that are here
GUIDING = ("prefix_rft", "uft", "hint_retry", "regft")  # act where a model solves something with guidance


@pytest.mark.parametrize("method", [name for name in METHODS if name not in {*STAGED, *GUIDING}])
def test_it_trains_on_four_ranks(prepared, tmp_path, method):  # noqa: F811
    process = start(
        "smoke",
        tmp_path / "run",
        f"method={method}",
        f"data.train_files={prepared}/data/train.parquet",
        f"data.val_files={prepared}/data/test.parquet",
        f"actor_rollout_ref.model.path={prepared}/model",
        "data.max_response_length=48",
        "trainer.n_gpus_per_node=4",
        f"trainer.total_training_steps={STEPS}",
    )
    check(finish(process, tmp_path / "run"), method)


@pytest.mark.parametrize("method", GUIDING)
def test_it_guides_on_four_ranks(task, tmp_path, method):  # noqa: F811
    overrides = GUIDED.get(method) or GUIDED[f"{method}-prefix"]
    more = ("trainer.n_gpus_per_node=4", f"trainer.total_training_steps={STEPS}")
    check(finish(start("quickstart", tmp_path / "run", *task, *overrides, *more), tmp_path / "run"), method)


def check(made: list[dict], method: str) -> None:
    """Check that a run made its steps, and that it had gradients."""
    assert [record["step"] for record in made] == list(range(1, STEPS + 1))
    norms = [value for record in made for name, value in record.items() if name.endswith("grad_norm")]
    assert all(math.isfinite(norm) for norm in norms)
    if method != "grpo":  # a random model solves nothing, so that verl's own loss has no gradient
        assert max(norms) > 0.0
