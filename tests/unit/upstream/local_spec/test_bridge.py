"""mbridge still knows Transformer Engine's layer spec only."""

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the findings are of a process without CUDA")


def test_mbridge_still_builds_from_transformer_engines_spec(megatron_process):
    """The day this fails, `use_local_spec` can go."""
    upstream, patched = megatron_process["spec"]
    assert megatron_process["spec asks for Transformer Engine"]
    assert upstream.startswith("TypeError") and patched is None


def test_mbridge_still_does_not_know_the_local_specs_names(megatron_process):
    """The day this fails, `map_local_spec_names` can go."""
    upstream, patched = megatron_process["names"]
    assert upstream.startswith("NotImplementedError") and patched == ["model.layers.0.input_layernorm.weight"]
