"""The two modules that Megatron's local layer spec lacks for verl: an RMSNorm that knows sequence parallelism and an
attention that takes packed (THD) input. Plain torch, so they run on CPU and on CUDA alike."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


class LocalRMSNorm(torch.nn.Module):
    """RMSNorm over the last dimension, computed in fp32.

    Megatron all-reduces the gradients of parameters marked `sequence_parallel` over the tensor-parallel group: with
    sequence parallelism each rank sees only its share of the tokens.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_unused):
        super().__init__()
        if config.normalization != "RMSNorm":
            raise NotImplementedError(f"the local layer spec knows RMSNorm only, not {config.normalization}")
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, x: Tensor) -> Tensor:
        """`x`: [..., hidden_size]; same shape and dtype back."""
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps).to(x.dtype)


class LocalDotProductAttention(MegatronModule):
    """Causal attention by `torch.nn.functional.scaled_dot_product_attention`, for padded and packed input."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type=None,
        attention_type=None,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        **_unused,
    ):
        super().__init__(config=config)
        if config.context_parallel_size != 1:
            raise NotImplementedError("context parallelism needs Transformer Engine; set context_parallel_size=1")
        self.scale = softmax_scale if softmax_scale is not None else 1.0 / math.sqrt(config.kv_channels)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type=None,
        attention_bias=None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """Attend causally within each sequence.

        Args:
            query: padded [s, b, heads, d], or packed [tokens, heads, d].
            key: the same with the number of query groups for heads.
            value: as `key`.
            attention_mask: unused; right-padding is invisible to causal attention.
            packed_seq_params: where each packed sequence starts.

        Returns:
            [s, b, heads * d] or [tokens, heads * d], in the dtype of `query`.
        """
        if packed_seq_params is None or packed_seq_params.qkv_format != "thd":
            s, b = query.shape[:2]
            q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))
            return self._attend(q, k, v).permute(2, 0, 1, 3).reshape(s, b, -1)

        layout = _group_by_length(packed_seq_params, query.device)

        def groups(t: Tensor) -> list[Tensor]:
            if layout.index is not None:
                t = t.new_zeros(layout.slots, *t.shape[1:]).index_copy(0, layout.index, t)
            parts = t.split([rows * width for rows, width in layout.groups])
            return [
                part.view(rows, width, *t.shape[1:]).transpose(1, 2)
                for part, (rows, width) in zip(parts, layout.groups, strict=True)
            ]

        attended = [self._attend(*qkv) for qkv in zip(groups(query), groups(key), groups(value), strict=True)]
        out = torch.cat([part.transpose(1, 2).flatten(0, 1).flatten(1) for part in attended])
        return out if layout.index is None else out.index_select(0, layout.index)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All [b, heads, s, d]."""
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=self.scale, enable_gqa=q.shape[1] != k.shape[1]
        )


@dataclass(frozen=True)
class _Groups:
    """Packed sequences as batches of similar lengths, each padded to its longest.

    One batch padded to the longest of all would spend most of its products on padding, which grows with the square of
    the length; one call per sequence would spend its time on calls where sequences are short and many.
    """

    groups: list[tuple[int, int]]  # (rows, width) of each batch, longest first
    index: Tensor | None  # [tokens] int64, where each token sits in the batches laid end to end; None: where it is

    @property
    def slots(self) -> int:
        return sum(rows * width for rows, width in self.groups)


# Of a batch's width; at most 1 - SHORTEST**2 of the attention's products are padding, and lengths from 1 to L make
# no more than log(L) / log(1 / SHORTEST) batches.
SHORTEST = 7 / 8


def _group_by_length(params: PackedSeqParams, device: torch.device) -> _Groups:
    """Kept on `params`: every layer of a micro-batch asks for the same one."""
    cached = getattr(params, "_relift_groups", None)
    if cached is None:
        starts = params.cu_seqlens_q_padded if params.cu_seqlens_q_padded is not None else params.cu_seqlens_q
        cached = _make_groups(starts.diff().tolist(), device)
        params._relift_groups = cached
    return cached


def _make_groups(lengths: list[int], device: torch.device) -> _Groups:
    """Groups of sequences that lie end to end in the given order."""
    groups: list[tuple[int, int]] = []
    first_slots, slots = [0] * len(lengths), 0
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i]):
        rows, width = groups[-1] if groups else (0, 0)
        if lengths[i] < SHORTEST * width or not groups:
            groups.append((1, lengths[i]))
        else:
            groups[-1] = (rows + 1, width)
        first_slots[i] = slots
        slots += groups[-1][1]
    repeats = torch.tensor(lengths)
    shift = torch.tensor(first_slots) - (repeats.cumsum(0) - repeats)
    tokens = torch.arange(sum(lengths))
    index = tokens + shift.repeat_interleave(repeats)
    if slots == len(tokens) and torch.equal(index, tokens):
        return _Groups(groups, None)
    return _Groups(groups, index.to(device))


def use_local_modules(spec):
    """Put the modules of this file into a `TransformerBlockSubmodules` of Megatron's local spec, in place."""
    for layer in spec.layer_specs:
        layer.submodules.input_layernorm = LocalRMSNorm
        layer.submodules.pre_mlp_layernorm = LocalRMSNorm
        attention = layer.submodules.self_attention.submodules
        attention.core_attention = LocalDotProductAttention
        for name in ("q_layernorm", "k_layernorm"):
            # IdentityOp where the model has no query/key norm.
            if "Norm" in getattr(getattr(attention, name, None), "__name__", ""):
                setattr(attention, name, LocalRMSNorm)
    spec.layer_norm = LocalRMSNorm
    return spec
