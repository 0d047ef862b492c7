"""SwiGLU on a CPU: Megatron's fused function gives what autograd makes of the formula, and keeps its input only."""

import inspect

import pytest
import torch
import torch.nn.functional as F
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS

MODULE = "megatron.core.fusions.fused_bias_swiglu"
fused = pytest.importorskip(MODULE)


def results(function, y: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = y.clone().requires_grad_()
    product = function(y)
    product.backward(gradient)
    return product.detach(), y.grad


def apart(y: torch.Tensor) -> torch.Tensor:
    """As Megatron computes it without fusion."""
    gate, value = y.chunk(2, dim=-1)
    return F.silu(gate) * (value + 0.0)


def at_once(y: torch.Tensor) -> torch.Tensor:
    return fused.bias_swiglu_impl(y, None)


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(5, 1, 64, generator=generator), torch.randn(5, 1, 32, generator=generator)


def test_in_fp32_the_results_are_equal_to_the_last_bit(inputs):
    for ours, theirs in zip(results(at_once, *inputs), results(apart, *inputs), strict=True):
        assert torch.equal(ours, theirs)


def test_bf16_is_rounded_once(inputs):
    y, gradient = (t.bfloat16() for t in inputs)
    exact = results(apart, y.float(), gradient.float())
    ours = results(at_once, y, gradient)
    assert torch.equal(ours[0], exact[0].bfloat16())
    torch.testing.assert_close(ours[1].float(), exact[1], atol=1e-6, rtol=2**-8)


def test_nothing_but_the_input_is_kept(inputs):
    kept = []
    y = inputs[0].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        at_once(y)
    assert set(kept) == {y.data_ptr()}


def test_megatron_still_writes_swiglu_out_for_a_compiler():
    """The day this fails, look whether `speed/swiglu.py` can go."""
    for name in ("swiglu", "swiglu_back"):
        assert f"@jit_fuser\ndef {name}(" in inspect.getsource(fused)
        assert ORIGINALS[f"{MODULE}:{name}"] is not getattr(fused, name)
