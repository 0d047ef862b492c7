"""The rotary embedding of packed sequences is Megatron's, without what it computes again for every layer."""

from dataclasses import dataclass

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("megatron.core")

import verl  # noqa: F401  loads the plugin, without which Megatron asks for CUDA

LENGTHS = [5, 40, 1, 39, 0, 12, 40, 36, 2]


@dataclass(frozen=True)
class _Group:
    """What the rotary embedding asks of a context-parallel group."""

    ranks: int = 1
    mine: int = 0

    def size(self) -> int:
        return self.ranks

    def rank(self) -> int:
        return self.mine


def rotated(function, t: torch.Tensor, lengths: list[int], freqs: torch.Tensor, group: _Group = _Group(), **settings):
    """Output and gradient of Megatron's rotary embedding on packed sequences."""
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    t = t.clone().requires_grad_()
    output = function(t, starts, freqs, cp_group=group, **settings)
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


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("angles", ["of each place", "of each token"])
def test_every_context_parallel_rank_rotates_its_parts_as_megatron(ranks, angles):
    from megatron.core.models.common.embeddings import rope_utils

    torch.manual_seed(0)
    lengths = [8 * n for n in (5, 1, 0, 3, 5)]
    freqs = 3 * torch.rand(max(lengths) if angles == "of each place" else sum(lengths), 1, 1, 4).repeat(1, 1, 1, 2)
    ours = rope_utils._apply_rotary_pos_emb_thd
    for rank in range(ranks):
        t, group = torch.randn(sum(lengths) // ranks, 4, 8), _Group(ranks, rank)
        for mine, theirs in zip(
            rotated(ours, t, lengths, freqs, group), rotated(ours.__wrapped__, t, lengths, freqs, group), strict=True
        ):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_nothing_outlives_the_micro_batch():
    """Megatron keeps the angles of 32 lengths; cosines that lived with them would add up."""
    from megatron.core.models.common.embeddings import rope_utils

    t, freqs = torch.randn(20, 2, 4), torch.rand(12, 1, 1, 2).repeat(1, 1, 1, 2)
    rotated(rope_utils._apply_rotary_pos_emb_thd, t, [12, 8], freqs)
    assert vars(freqs) == {}


def test_the_same_angles_serve_another_packing():
    from megatron.core.models.common.embeddings import rope_utils

    t, freqs = torch.randn(20, 2, 4), torch.rand(12, 1, 1, 2).repeat(1, 1, 1, 2)
    ours = rope_utils._apply_rotary_pos_emb_thd
    for lengths in ([12, 8], [8, 12], [12, 8]):
        mine, theirs = (rotated(f, t, lengths, freqs)[0] for f in (ours, ours.__wrapped__))
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_megatron_still_computes_the_same_cosines_for_every_layer():
    """The day this fails, `rotate_at_once` can go."""
    from megatron.core.models.common.embeddings import rope_utils

    class Counter(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.cosines = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.cosines += function is torch.ops.aten.cos.default
            return function(*args, **(kwargs or {}))

    starts = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    t = torch.randn(sum(LENGTHS), 4, 8)
    counts = []
    for rotate in (rope_utils._apply_rotary_pos_emb_thd, rope_utils._apply_rotary_pos_emb_thd.__wrapped__):
        freqs = torch.rand(40, 1, 1, 4).repeat(1, 1, 1, 2)
        with Counter() as counter:
            for _ in range(2):  # layers
                rotate(t, starts, freqs, cp_group=_Group())
        counts.append(counter.cosines)
    ours, theirs = counts
    assert ours == 1 and theirs >= 2
