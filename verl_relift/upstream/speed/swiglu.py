"""Megatron's fused SwiGLU on a CPU, where `torch.compile` doesn't fuse it."""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import Where, patch, replace


@patch(
    where=Where.CPU,
    replaces=(
        "megatron.core.fusions.fused_bias_swiglu:swiglu",
        "megatron.core.fusions.fused_bias_swiglu:swiglu_back",
    ),
    versions=("megatron-core",),
    upstream="leaves it to torch.compile to make one pass of SwiGLU's formulas. Here the backward pass has torch's own "
    "kernel for SiLU and writes both halves where they belong; bf16 is rounded once, as by a fused kernel",
    canary="test_megatron_still_writes_swiglu_out_for_a_compiler",
)
def multiply_in_place(module: ModuleType) -> None:
    replace(module, "swiglu", _swiglu)
    replace(module, "swiglu_back", _swiglu_back)


def _wide(t: Tensor) -> Tensor:
    """In fp32. What stands for a GPU's tensor (`trace/phantom.py`) stays: there a kernel widens what it reads."""
    return t.float() if t.is_cpu else t


def _swiglu(y: Tensor) -> Tensor:
    """`y` [..., 2 n], gates and values side by side -> SiLU(gates) * values [..., n]."""
    gate, value = y.chunk(2, dim=-1)
    return F.silu(_wide(gate)).mul_(value).to(y.dtype)


def _swiglu_back(gradient: Tensor, y: Tensor) -> Tensor:
    """The gradient of `y` [..., 2 n] from that of the product [..., n]."""
    gate, value = (_wide(half) for half in y.chunk(2, dim=-1))
    result = torch.empty_like(y)
    of_gate, of_value = result.chunk(2, dim=-1)
    of_gate.copy_(torch.ops.aten.silu_backward(gradient * value, gate))
    of_value.copy_(F.silu(gate).mul_(gradient))
    return result
