"""Checkpoints of two sets of AdamW moments over one set of weights, resumed in the same layout and in others."""

import pytest
import torch

from verl_relift.testing.parity.ranks import LAYOUTS, run_ranks, save_model

FAST = {("TP2", "float32"), ("DP2", "bfloat16")}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function from layout and dtype to (model folder, checkpoint, weights of the run that was not interrupted)."""
    made = {}
    model = tmp_path_factory.mktemp("model")
    save_model("qwen2", model)

    def get(layout: str, dtype: str = "float32"):
        if (layout, dtype) not in made:
            made[layout, dtype] = None
            folder = tmp_path_factory.mktemp(f"saved-{layout}-{dtype}")
            weights = run_ranks("checkpoint_worker", model, folder / "out", layout, "save", str(folder), dtype)
            made[layout, dtype] = (model, folder, weights)
        assert made[layout, dtype] is not None, f"{layout} in {dtype} was not saved; see the first failure"
        return made[layout, dtype]

    return get


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        # In bf16 the masters, which data parallelism shares out, are more than the weights tell.
        (layout, dtype) if (layout, dtype) in FAST else pytest.param(layout, dtype, marks=pytest.mark.slow)
        for layout in LAYOUTS
        for dtype in ("float32", "bfloat16")
    ],
)
def test_resuming_in_the_same_layout_is_bit_equal(saved, tmp_path, layout, dtype):
    model, folder, weights = saved(layout, dtype)
    resumed = run_ranks("checkpoint_worker", model, tmp_path / "out", layout, "load", str(folder), dtype)
    for ours, theirs in zip(resumed, weights, strict=True):
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("TP2", "TP1"),
        pytest.param("TP1", "TP2", marks=pytest.mark.slow),
        pytest.param("PP2", "TP2", marks=pytest.mark.slow),
        pytest.param("DP2", "TP1", marks=pytest.mark.slow),
        pytest.param("TP2", "DP2", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_resumes_in_another_layout(saved, tmp_path, before, after):
    """AdamW divides by the square roots of tiny values, so an update differs between layouts in its fifth digit."""
    model, folder, weights = saved(before)
    resumed = run_ranks("checkpoint_worker", model, tmp_path / "out", after, "load", str(folder), "float32")
    for name, tensor in weights[0].items():
        torch.testing.assert_close(resumed[0][name], tensor, atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
