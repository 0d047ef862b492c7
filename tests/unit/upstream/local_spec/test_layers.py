"""Packed sequences grouped by length for attention."""

import random
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

pytest.importorskip("megatron.core")

import verl  # noqa: F401  loads the plugin, without which Megatron asks for CUDA

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


def test_packed_attention_equals_a_loop_over_sequences():
    from megatron.core.packed_seq_params import PackedSeqParams
    from megatron.core.transformer.transformer_config import TransformerConfig

    config = TransformerConfig(num_layers=1, hidden_size=32, num_attention_heads=4, num_query_groups=2)
    attention = LocalDotProductAttention(config, layer_number=1)
    lengths = [3, 7, 1]
    q, k, v = (torch.randn(sum(lengths), heads, 8) for heads in (4, 2, 2))
    starts = torch.tensor([0, 3, 10, 11], dtype=torch.int32)
    packed = attention(q, k, v, None, packed_seq_params=PackedSeqParams(qkv_format="thd", cu_seqlens_q=starts))
    for first, last in pairwise(starts):
        one = attention(*(t[first:last].unsqueeze(1) for t in (q, k, v)), None)
        torch.testing.assert_close(packed[first:last], one.squeeze(1), atol=1e-6, rtol=0)
