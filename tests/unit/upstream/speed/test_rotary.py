"""The rotary embedding of packed sequences is Megatron's, without what it computes again for every layer."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("megatron.core")

import verl  # noqa: F401  loads the plugin, without which Megatron asks for CUDA

from verl_relift.upstream.transformer_engine import usable

pytestmark = pytest.mark.skipif(usable(), reason="Transformer Engine has a kernel for it")

LENGTHS = [5, 40, 1, 39, 0, 12, 40, 36, 2]


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
                rotate(t, starts, freqs, cp_group=_OneRank())
        counts.append(counter.cosines)
    ours, theirs = counts
    assert ours == 1 and theirs >= 2
