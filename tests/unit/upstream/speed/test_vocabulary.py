"""Log-probs and entropies in blocks of logits are those of plain PyTorch, with their gradients."""

import threading
from dataclasses import dataclass, field

import pytest
import torch
import verl  # noqa: F401  loads the plugin
from torch import Tensor

from verl_relift.plan import memory
from verl_relift.upstream.speed import vocabulary

POSITIONS, VOCABULARY, HIDDEN = 70, 96, 16
ON_CPU = vocabulary.BLOCK_BYTES_CPU


@dataclass
class _Ranks:
    """Threads in the place of a process group's ranks, each with a communicator that stands for torch.distributed."""

    size: int
    barrier: threading.Barrier = field(init=False)
    sent: list[Tensor | None] = field(init=False)

    def __post_init__(self) -> None:
        self.barrier, self.sent = threading.Barrier(self.size), [None] * self.size

    def all_reduce(self, rank: int, tensor: Tensor, op) -> None:
        self.sent[rank] = tensor.clone()
        self.barrier.wait(10)
        stacked = torch.stack(self.sent)
        tensor.copy_(stacked.amax(0) if op is torch.distributed.ReduceOp.MAX else stacked.sum(0))
        self.barrier.wait(10)


class _Distributed:
    """What `vocabulary` calls on `torch.distributed`; the group is (ranks, rank)."""

    ReduceOp = torch.distributed.ReduceOp
    ProcessGroup = object

    @staticmethod
    def get_rank(group) -> int:
        return group[1]

    @staticmethod
    def all_reduce(tensor: Tensor, op=torch.distributed.ReduceOp.SUM, group=None) -> None:
        group[0].all_reduce(group[1], tensor, op)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks in each pass, the last ones incomplete."""
    monkeypatch.setattr(vocabulary, "dist", _Distributed)
    monkeypatch.setattr(vocabulary, "BLOCK_BYTES_CPU", 0)
    monkeypatch.setattr(vocabulary, "ROWS", 20)


@dataclass
class _Inputs:
    hidden: Tensor
    weight: Tensor
    labels: Tensor
    of_log_probs: Tensor
    of_entropies: Tensor


def inputs(dtype: torch.dtype = torch.float32, scale: float = 0.5) -> _Inputs:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return _Inputs(
        draw(POSITIONS, HIDDEN).to(dtype),
        (scale * draw(VOCABULARY, HIDDEN)).to(dtype),
        torch.randint(0, VOCABULARY, (POSITIONS,), generator=generator),
        draw(POSITIONS) / POSITIONS,
        draw(POSITIONS) / POSITIONS,
    )


def expected(given: _Inputs, temperature: float, entropy: bool = True) -> list[Tensor]:
    """Log-probs, entropies and the gradients of both factors, in fp64."""
    hidden, weight = (t.double().requires_grad_() for t in (given.hidden, given.weight))
    distribution = torch.log_softmax(hidden @ weight.t() / temperature, -1)
    log_probs = distribution.gather(1, given.labels[:, None])[:, 0]
    entropies = -(distribution.exp() * distribution).sum(-1)
    loss = log_probs @ given.of_log_probs.double() + (entropies @ given.of_entropies.double() if entropy else 0)
    return [log_probs, entropies, *torch.autograd.grad(loss, (hidden, weight))]


def computed(given: _Inputs, temperature: float, ranks: int = 1, entropy: bool = True) -> list[Tensor]:
    """The same in blocks, by ranks that hold a share of the vocabulary each."""
    together, found = _Ranks(ranks), [None] * ranks

    def run(rank: int) -> None:
        hidden, weight = given.hidden.clone().requires_grad_(), given.weight.chunk(ranks)[rank].clone().requires_grad_()
        log_probs, entropies = vocabulary.log_probs_and_entropies(
            hidden, weight, given.labels, temperature, (together, rank), entropy
        )
        loss = log_probs @ given.of_log_probs + (entropies @ given.of_entropies if entropy else 0)
        found[rank] = [log_probs, entropies, *torch.autograd.grad(loss, (hidden, weight))]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    log_probs, entropies = found[0][:2]
    for other in found[1:]:
        assert torch.equal(other[0], log_probs) and (not entropy or torch.equal(other[1], entropies))
    # Megatron's mappings add up the hidden states' gradient over the ranks.
    return [log_probs, entropies, sum(of[2] for of in found), torch.cat([of[3] for of in found])]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_and_gradients_are_those_of_plain_pytorch(ranks, temperature):
    given = inputs()
    for ours, theirs in zip(computed(given, temperature, ranks), expected(given, temperature), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("ranks", [1, 2])
def test_logits_far_from_zero_overflow_nowhere(ranks):
    given = inputs(scale=100.0)
    for ours, theirs in zip(computed(given, 1.0, ranks), expected(given, 1.0), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-2, rtol=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_without_the_entropy_the_rest_is_the_same(ranks):
    given = inputs()
    log_probs, entropies, *gradients = computed(given, 1.0, ranks, entropy=False)
    assert entropies is None
    assert torch.equal(log_probs, computed(given, 1.0, ranks)[0])
    for ours, theirs in zip(gradients, expected(given, 1.0, entropy=False)[2:], strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("entropy", [True, False])
@pytest.mark.parametrize("read", [0, 1, 45])
def test_positions_that_no_loss_reads_are_left_out_of_the_backward_pass(monkeypatch, read, entropy):
    given = inputs()
    for gradient in (given.of_log_probs, given.of_entropies):
        gradient[torch.randperm(POSITIONS, generator=torch.Generator().manual_seed(1))[read:]] = 0
    multiplied, multiply = [], vocabulary.multiply
    monkeypatch.setattr(vocabulary, "multiply", lambda a, b: multiplied.append(len(a)) or multiply(a, b))
    log_probs, _, *gradients = computed(given, 0.6, 2, entropy)
    exact = expected(given, 0.6, entropy)
    for ours, theirs in zip((log_probs, *gradients), (exact[0], *exact[2:]), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-6, rtol=1e-6)
    assert set(multiplied) == {20, 10, read} and gradients[0].any(1).sum() == read


def test_the_entropy_alone_has_a_gradient():
    given = inputs()
    given.of_log_probs.zero_()
    for ours, theirs in zip(computed(given, 1.0), expected(given, 1.0), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-6, rtol=1e-6)


def test_bf16_rounds_hidden_states_and_weights_and_not_the_logits():
    given = inputs(torch.bfloat16)
    log_probs, entropies, *gradients = computed(given, 0.6)
    exact = expected(given, 0.6)
    for ours, theirs in zip((log_probs, entropies), exact[:2], strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, atol=2e-6, rtol=1e-6)
    for ours, theirs in zip(gradients, exact[2:], strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), theirs, atol=2**-8 * theirs.abs().max().item(), rtol=2**-7)
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


def test_a_frozen_weight_has_no_gradient():
    given = inputs()
    hidden = given.hidden.requires_grad_()
    log_probs, _ = vocabulary.log_probs_and_entropies(hidden, given.weight, given.labels, 1.0, (_Ranks(1), 0), True)
    log_probs.sum().backward()
    assert given.weight.grad is None and hidden.grad is not None


def test_the_plan_knows_the_blocks():
    assert (memory.LOGIT_BLOCK, memory.LOGIT_BLOCK_CPU) == (vocabulary.BLOCK_BYTES, ON_CPU)
