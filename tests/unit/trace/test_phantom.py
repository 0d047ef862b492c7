"""Tensors without memory: which they are, what they answer, and what a pass leaves in memory."""

import pytest
import torch
import torch.nn.functional as F

from verl_relift.actor.batch import jagged, jagged_like
from verl_relift.trace.memory import Place
from verl_relift.trace.phantom import SMALL, Phantoms, is_phantom


@pytest.fixture
def memory():
    with Phantoms().active() as counted:
        yield counted


def test_large_floats_are_phantoms_and_integers_are_real(memory):
    assert is_phantom(torch.zeros(SMALL))
    assert is_phantom(torch.empty(4, 4, dtype=torch.bfloat16, device="cpu"))
    assert not is_phantom(torch.zeros(SMALL - 1))
    assert torch.arange(100).sum() == 4950
    assert memory.total() == 0  # they are gone again


def test_a_phantom_is_on_the_cpu_and_has_a_value(memory):
    phantom = torch.zeros(1000)
    assert phantom.device == torch.device("cpu")
    assert phantom.type() == "torch.FloatTensor"
    assert phantom.sum().item() == 1.0
    assert torch.tensor([phantom.max(), 2.0]).tolist() == [1.0, 2.0]
    assert memory.total() == 4000


def test_what_meets_a_phantom_becomes_one_and_what_is_real_stays(memory):
    real, phantom = torch.ones(10), torch.zeros(10, 100)
    assert is_phantom(phantom.sum(1) + real)
    real.add_(phantom.sum(1))
    assert real.tolist() == [1.0] * 10
    mask = torch.arange(10) % 2 == 0
    assert phantom[mask].shape == (5, 100)
    assert phantom[phantom.sum(1) > 0].shape == (10, 100)  # a mask without values: all


def test_jagged_phantoms(memory):
    values = torch.zeros(10, 100).sum(1)
    nested = jagged_like(values, jagged([torch.arange(4), torch.arange(6)]))
    assert nested.device == torch.device("cpu")
    assert [row.shape[0] for row in (nested * 2).unbind()] == [4, 6]
    assert nested.to_padded_tensor(0.0).shape == (2, 6)
    grown = torch.zeros(10, 100, requires_grad=True)
    jagged_like(grown.sum(1), jagged([torch.arange(4), torch.arange(6)])).to_padded_tensor(0.0).sum().backward()
    assert grown.grad.shape == (10, 100)
    assert jagged([torch.arange(3), torch.arange(2)]).to_padded_tensor(0).tolist() == [[0, 1, 2], [0, 1, 0]]


def test_a_linear_layer_keeps_its_input_and_gives_gradients(memory):
    weight = torch.zeros(64, 128, requires_grad=True)
    resident = memory.total()
    assert resident == 64 * 128 * 4
    with memory.phase("step"):
        out = F.linear(torch.zeros(32, 128), weight)
        assert memory.total() - resident == (32 * 128 + 32 * 64) * 4
        out.sum().backward()
    assert weight.grad.shape == (64, 128)
    del out
    assert memory.total() == 2 * resident


def test_attention_and_norms_keep_what_a_fused_kernel_keeps(memory):
    query, key, value = (torch.zeros(2, 4, 128, 64, requires_grad=True) for _ in range(3))
    resident = memory.total()
    out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert memory.total() - resident == out.nbytes + 2 * 4 * 128 * 4
    normalized = F.rms_norm(out, (64,), torch.ones(64), 1e-6)
    assert memory.total() - resident == 2 * out.nbytes + 2 * (2 * 4 * 128 * 4) + 64 * 4
    normalized.sum().backward()
    assert query.grad.shape == query.shape


def test_host_memory_is_what_is_called_cpu(memory):
    with memory.phase("step"):
        there = torch.zeros(1000)
        here = there.cpu()
        assert here.cpu() is here
        assert memory.place_of(here) is Place.HOST
        assert memory.place_of(torch.zeros(1000, device="cpu")) is Place.HOST
        assert memory.place_of(torch.zeros(1000, device=there.device)) is Place.DEVICE
        assert memory.place_of(torch.cat([here, here])) is Place.HOST
        assert memory.place_of(here.cuda()) is Place.DEVICE
        assert there.to(there.device) is there
        assert memory.place_of(here.to(there.device, torch.bfloat16)) is Place.DEVICE
    assert memory.peaks["step"][Place.HOST].total == 4000 + 8000


def test_a_compiled_function_keeps_its_result_only(memory):
    one = torch.zeros(1000)

    @torch.compile(dynamic=True)
    def product(a, b):
        return (a * b).sum()

    with memory.phase("step"):
        result = product(one, one)
    assert memory.peaks["step"][Place.DEVICE].total == one.nbytes + result.nbytes


def test_on_a_cpu_there_are_no_kernels():
    with Phantoms(cuda=False).active() as memory, memory.phase("step"):
        one = torch.zeros(1000)
        result = torch.compile(lambda a: (a * a).sum(), backend="eager", disable=True)(one)
        del result
    assert memory.peaks["step"][Place.DEVICE].total == 2 * one.nbytes + 4


def test_nothing_stays_replaced():
    compile_before = torch.compile
    with Phantoms().active():
        assert torch.compile is not compile_before
    assert torch.compile is compile_before
    assert not is_phantom(torch.zeros(1000))
