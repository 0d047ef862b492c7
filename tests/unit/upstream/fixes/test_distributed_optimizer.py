"""Checkpoints of the distributed optimizer with torch's AdamW.

tests/parity/test_checkpoint.py resumes from real ones.
"""

import importlib
from types import SimpleNamespace

import pytest
import torch

from verl_relift.upstream.fixes.distributed_optimizer import save_and_load_torch_adamw
from verl_relift.upstream.registry import Where

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the findings are of a process without CUDA")


def test_checkpoints_with_torchs_adamw_are_still_wrong(megatron_process):
    """The day one of these fails, `save_and_load_torch_adamw` can lose a part."""
    upstream, patched = (megatron_process["checkpoints"][whose] for whose in ("upstream", "patched"))
    assert upstream["sharded_state_dict in a fresh process"] == "AssertionError: "
    assert patched["sharded_state_dict in a fresh process"].startswith("ValueError: Model param")  # there is no model
    assert upstream["tensors that hold them"] == 1 and patched["tensors that hold them"] == 2
    assert upstream["steps"] == patched["steps"] == [7.0, 7.0]
    assert "in-place" in upstream["_set_main_param_and_optimizer_states"]
    assert patched["_set_main_param_and_optimizer_states"] is None


def test_it_is_needed_wherever_torchs_optimizer_is_used_on_cuda_too():
    importlib.import_module("megatron.core.optimizer.distrib_optimizer")
    assert save_and_load_torch_adamw.where is Where.LOCAL_SPEC
    assert save_and_load_torch_adamw.needed(SimpleNamespace(HAVE_APEX_OR_TE=False))
    assert not save_and_load_torch_adamw.needed(SimpleNamespace(HAVE_APEX_OR_TE=True))
