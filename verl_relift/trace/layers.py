"""What stands in for Transformer Engine's modules: they keep for the backward pass what its kernels keep.

| Transformer Engine | here | keeps |
|---|---|---|
| RMSNorm, alone or in a linear layer | `Norm` | input, output (the linear layer's input), a number per token |
| DotProductAttention, fused or flash | `Attention` | queries, keys, values, output, a number per head and token |
| linear layers | Megatron's own of the local spec | their input, as Transformer Engine's |

With context parallelism the keys and values of the neighbors come in turns, two buffers at a time.
"""

import torch
from megatron.core import parallel_state
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig

from .phantom import attend, normalize


class Norm(torch.nn.Module):
    """An RMSNorm without intermediate results."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_unused):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x`: [..., hidden_size]; same shape and dtype back."""
        return normalize(x, self.weight)


class Attention(MegatronModule):
    """Attention on packed sequences [tokens, heads, d] as a fused kernel computes it."""

    def __init__(self, config: TransformerConfig, *_, **__):
        super().__init__(config=config)
        self._ring = parallel_state.get_context_parallel_world_size() > 1

    def forward(self, query, key, value, attention_mask=None, **_unused) -> torch.Tensor:
        """Return [tokens, heads * d], or [s, b, heads * d] of input that is not packed."""
        if self._ring:
            buffers = [torch.empty_like(t) for t in (key, value) * 2]  # noqa: F841  until the kernel ends
        return attend(query, key, value).flatten(-2)


def use_stand_ins(spec):
    """Put the modules of this file into a `TransformerBlockSubmodules` of Megatron's local spec, in place."""
    for layer in spec.layer_specs:
        layer.submodules.input_layernorm = Norm
        layer.submodules.pre_mlp_layernorm = Norm
        attention = layer.submodules.self_attention.submodules
        attention.core_attention = Attention
        for name in ("q_layernorm", "k_layernorm"):
            # IdentityOp where the model has no query/key norm.
            if "Norm" in getattr(getattr(attention, name, None), "__name__", ""):
                setattr(attention, name, Norm)
    spec.layer_norm = Norm
    return spec
