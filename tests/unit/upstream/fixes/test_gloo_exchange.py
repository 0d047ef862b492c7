"""Megatron's exchange of a checkpoint's parts over gloo."""

import importlib
import inspect

import pytest
import torch
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="NCCL keeps the order of broadcasts")
MODULE = "megatron.core.dist_checkpointing.exchange_utils"


def test_megatron_still_does_not_wait_for_its_broadcasts():
    """The day this fails, `wait_for_broadcasts` can go."""
    importlib.import_module(MODULE)
    source = inspect.getsource(ORIGINALS[f"{MODULE}:exchange_loaded_tensors_broadcast"])
    assert "async_op=orig_device is None" in source and ".wait()" not in source


def test_broadcasts_are_waited_for_and_cuda_means_the_cpu(monkeypatch):
    module = importlib.import_module(MODULE)
    calls = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *args, **kwargs: calls.append((args, kwargs)))
    module.torch.distributed.broadcast("tensor", src=1, group=None, async_op=True)
    assert calls == [(("tensor",), {"src": 1, "group": None})]
    assert module.torch.empty(1, device="cuda").device.type == "cpu"
    assert module.torch.distributed.get_rank is torch.distributed.get_rank
