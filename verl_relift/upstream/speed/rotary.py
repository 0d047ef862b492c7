"""Megatron's rotary embedding of packed input, without its copies."""

import functools
from types import ModuleType

import torch
from torch import Tensor

from ..registry import Where, patch, replace
from .rows import places


@patch(
    where=Where.EVERYWHERE,
    replaces=("megatron.core.models.common.embeddings.rope_utils:_apply_rotary_pos_emb_thd",),
    versions=("megatron-core",),
    upstream="where no kernel of Transformer Engine does it, and none does unless `apply_rope_fusion` is set, cuts out "
    "the angles of every sequence, computes their cosines again for the queries and the keys of every layer, and "
    "copies its input for every operation of the formula. What is asked for beyond the plain case is left to it",
    canary="test_megatron_still_computes_the_same_cosines_for_every_layer",
    issue="NVIDIA/Megatron-LM#1646",
)
def rotate_at_once(rope_utils: ModuleType) -> None:
    original = rope_utils._apply_rotary_pos_emb_thd

    @functools.wraps(original)
    def _apply_rotary_pos_emb_thd(
        t: Tensor, cu_seqlens: Tensor, freqs: Tensor, *args, mscale: float = 1.0, cp_group=None, **settings
    ) -> Tensor:
        plain = not args and not any(settings.values()) and mscale == 1 and cp_group is not None
        if not plain or freqs.shape[1:] != (1, 1, t.shape[-1]):
            return original(t, cu_seqlens, freqs, *args, mscale=mscale, cp_group=cp_group, **settings)
        return _Rotate.apply(t, *_turns(freqs, cu_seqlens, t.dtype, cp_group))

    replace(rope_utils, "_apply_rotary_pos_emb_thd", _apply_rotary_pos_emb_thd)


def _turns(freqs: Tensor, starts: Tensor, dtype: torch.dtype, cp_group) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every packed token, [tokens, 1, d/2]; kept on `starts`, which every layer gets."""
    kept = getattr(starts, "_relift_turns", None)
    if kept is None or kept[0] is not freqs or kept[1].dtype != dtype:
        angles = freqs[_positions(freqs, starts, cp_group), 0, :, : freqs.shape[-1] // 2]
        starts._relift_turns = kept = (freqs, angles.cos().to(dtype), angles.sin().to(dtype))
    return kept[1:]


def _positions(freqs: Tensor, starts: Tensor, cp_group) -> Tensor:
    """[tokens] int64: which of the angles each token of this context-parallel rank has."""
    lengths = starts.diff()
    # As in Megatron, as many angles as tokens are one for each token, otherwise one for each place in a sequence.
    firsts = starts[:-1] if len(freqs) == int(starts[-1]) else torch.zeros_like(lengths)
    if cp_group.size() == 1:
        return places(firsts, lengths)
    # Of 2 * size parts of a sequence, a rank has one and its mirror image, so that all have as much to attend to.
    part, rank = lengths // (2 * cp_group.size()), cp_group.rank()
    mirrored = firsts + (2 * cp_group.size() - rank - 1) * part
    return places(torch.stack([firsts + rank * part, mirrored], dim=1).flatten(), part.repeat_interleave(2))


class _Rotate(torch.autograd.Function):
    """Rotate pairs of elements (i, i + d/2) by angles; the gradient is rotated back."""

    @staticmethod
    def forward(ctx, t: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`t` [tokens, heads, d], `cos` and `sin` [tokens, 1, d/2]."""
        ctx.save_for_backward(cos, sin)
        return _rotate(t, cos, sin, 1)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        """With respect to `t`."""
        return _rotate(gradient, *ctx.saved_tensors, -1), None, None


def _rotate(t: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    first, second = t.chunk(2, dim=-1)
    out = torch.empty_like(t)
    a, b = out.chunk(2, dim=-1)
    if t.dtype != torch.float32:  # rounded once, as vLLM does it
        first, second, cos, sin = first.float(), second.float(), cos.float(), sin.float()
        a.copy_(torch.addcmul(first * cos, second, sin, value=-direction))
        b.copy_(torch.addcmul(second * cos, first, sin, value=direction))
        return out
    torch.mul(first, cos, out=a).addcmul_(second, sin, value=-direction)
    torch.mul(second, cos, out=b).addcmul_(first, sin, value=direction)
    return out
