"""mbridge and the scaling of rotary positions."""

import pytest
import torch

from verl_relift.model_support import ROPE
from verl_relift.upstream.fixes.rope import SCALED

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the findings are of a process without CUDA")


def test_mbridge_still_drops_the_scaling_of_positions(megatron_process):
    """The day this fails, `scale_positions` can go."""
    found = megatron_process["positions"]
    for kind in ("llama3", "yarn"):
        assert not found[f"upstream {kind}"]["same frequencies"]
        assert found[f"patched {kind}"]["same frequencies"]


def test_the_factor_of_yarn_multiplies_the_scores_twice(megatron_process):
    found = megatron_process["positions"]
    assert found["patched yarn"]["expected"] > 1.2
    assert found["patched yarn"]["attention times"] == pytest.approx(found["patched yarn"]["expected"])
    assert found["patched llama3"]["attention times"] == pytest.approx(1)
    assert found["upstream yarn"]["attention times"] == pytest.approx(1)


def test_the_checks_let_through_what_is_scaled():
    assert set(ROPE) == {"default", *SCALED}
