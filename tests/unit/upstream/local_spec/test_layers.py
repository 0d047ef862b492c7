"""Packed sequences grouped by length for attention."""

import random

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

pytest.importorskip("megatron.core")

import verl  # noqa: F401  loads the platform plugin, without which Megatron asks for CUDA

from verl_relift.upstream.local_spec.layers import SHORTEST, LocalDotProductAttention, _make_groups

LENGTHS = [5, 40, 1, 39, 0, 12, 40, 36, 2]


@pytest.mark.parametrize("lengths", [LENGTHS, [7], [7, 7], [1, 2], random.Random(1).choices(range(1, 500), k=60)])
def test_every_token_has_a_slot_of_its_own_among_its_like(lengths):
    layout = _make_groups(lengths, torch.device("cpu"))
    index = torch.arange(sum(lengths)) if layout.index is None else layout.index
    assert len(set(index.tolist())) == sum(lengths)
    assert int(index.max()) < layout.slots
    assert layout.slots * SHORTEST <= sum(lengths) + len(layout.groups)
    assert [width for _, width in layout.groups] == sorted((width for _, width in layout.groups), reverse=True)


def test_sequences_that_lie_right_are_not_moved():
    assert _make_groups([7, 7, 7], torch.device("cpu")).index is None
    assert _make_groups([9], torch.device("cpu")).index is None
    assert _make_groups([7, 9], torch.device("cpu")).index is not None


class _OneRank:
    def size(self) -> int:
        return 1

    def rank(self) -> int:
        return 0


def rotated(function, t: torch.Tensor, lengths: list[int], freqs: torch.Tensor, **settings):
    """Output and gradient of Megatron's rotary embedding on packed sequences."""
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    t = t.clone().requires_grad_()
    output = function(t, starts, freqs, cp_group=_OneRank(), **settings)
    (output * torch.arange(output.numel()).view(output.shape).sin()).sum().backward()
    return output.detach(), t.grad


@pytest.mark.parametrize(
    ("lengths", "positions", "settings"),
    [
        (LENGTHS, 40, {}),
        (LENGTHS, sum(LENGTHS), {}),  # an angle for every token
        ([40], 40, {"rotary_interleaved": False, "multi_latent_attention": False}),
        (LENGTHS, 40, {"mscale": 1.5}),
        (LENGTHS, 40, {"rotary_interleaved": True}),
    ],
)
def test_packed_rotation_and_its_gradient_are_megatrons(lengths, positions, settings):
    from megatron.core.models.common.embeddings import rope_utils

    torch.manual_seed(0)
    t, freqs = torch.randn(sum(lengths), 4, 8), 3 * torch.rand(positions, 1, 1, 4)
    freqs = torch.cat([freqs, freqs], dim=-1)
    ours = rope_utils._apply_rotary_pos_emb_thd
    for mine, theirs in zip(
        rotated(ours, t, lengths, freqs, **settings),
        rotated(ours.__wrapped__, t, lengths, freqs, **settings),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_a_part_of_the_head_is_rotated_as_by_megatron():
    from megatron.core.models.common.embeddings import rope_utils

    t, freqs = torch.randn(sum(LENGTHS), 4, 8), torch.rand(40, 1, 1, 4)
    ours = rope_utils._apply_rotary_pos_emb_thd
    assert torch.equal(rotated(ours, t, LENGTHS, freqs)[0], rotated(ours.__wrapped__, t, LENGTHS, freqs)[0])


def test_the_same_angles_serve_another_packing():
    from megatron.core.models.common.embeddings import rope_utils

    t, freqs = torch.randn(20, 2, 4), torch.rand(12, 1, 1, 2).repeat(1, 1, 1, 2)
    ours = rope_utils._apply_rotary_pos_emb_thd
    for lengths in ([12, 8], [8, 12], [12, 8]):
        mine, theirs = (rotated(f, t, lengths, freqs)[0] for f in (ours, ours.__wrapped__))
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_packed_attention_and_its_gradient_are_those_of_each_sequence_alone():
    from megatron.core.packed_seq_params import PackedSeqParams

    torch.manual_seed(0)
    tokens, heads, groups, d = sum(LENGTHS), 4, 2, 8
    q = torch.randn(tokens, heads, d, requires_grad=True)
    k, v = (torch.randn(tokens, groups, d, requires_grad=True) for _ in range(2))
    starts = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    attention = LocalDotProductAttention.__new__(LocalDotProductAttention)
    torch.nn.Module.__init__(attention)
    attention.scale = d**-0.5
    packed = attention(q, k, v, None, packed_seq_params=PackedSeqParams(qkv_format="thd", cu_seqlens_q=starts))
    alone = torch.cat(
        [
            scaled_dot_product_attention(
                *(t.transpose(0, 1)[None] for t in qkv), is_causal=True, scale=d**-0.5, enable_gqa=True
            )[0].transpose(0, 1)
            for qkv in zip(*(t.split(LENGTHS) for t in (q, k, v)), strict=True)
            if len(qkv[0])
        ]
    ).flatten(1)
    torch.testing.assert_close(packed, alone, atol=1e-6, rtol=0)
    weights = torch.randn_like(packed)
    ours = torch.autograd.grad((packed * weights).sum(), (q, k, v))
    theirs = torch.autograd.grad((alone * weights).sum(), (q, k, v))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)
