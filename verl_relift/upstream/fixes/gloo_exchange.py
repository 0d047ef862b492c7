"""Megatron's exchange of a checkpoint's parts among data-parallel ranks, over gloo."""

from types import ModuleType

import torch

from ..registry import Where, patch, replace
from ..view import View


@patch(
    where=Where.CPU,
    replaces=("megatron.core.dist_checkpointing.exchange_utils:torch",),
    versions=("megatron-core",),
    upstream="does not wait for its broadcasts: a CUDA stream keeps their order, gloo's threads do not",
    canary="test_megatron_still_does_not_wait_for_its_broadcasts",
)
def wait_for_broadcasts(module: ModuleType) -> None:
    def broadcast(*args, async_op=False, **kwargs):
        return torch.distributed.broadcast(*args, **kwargs)

    replace(module, "torch", View(module.torch, distributed=View(torch.distributed, broadcast=broadcast)))
