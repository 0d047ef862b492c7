"""verl's fused output layer computes in blocks where the logits are large, and by verl's own functions where not.

That the results are those of the unfused path, in every layout, is in tests/parity/test_megatron.py.
"""

import importlib
import inspect
from types import SimpleNamespace

import pytest
import torch
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS
from verl_relift.upstream.speed import output_layer, vocabulary

pytest.importorskip("megatron.core")

MIB = 1 << 20
FUSED = "verl.models.mcore.model_forward_fused"


def layer(rows: int, sequence_parallel: bool = False, ranks: int = 1) -> SimpleNamespace:
    """What is asked of Megatron's output layer with this many rows on a rank."""
    group = SimpleNamespace(size=lambda: ranks)
    return SimpleNamespace(output_size_per_partition=rows, sequence_parallel=sequence_parallel, tp_group=group)


@pytest.mark.parametrize(
    ("positions", "rows", "sequence_parallel", "dtype", "small"),
    [
        (8 * MIB, 1, False, torch.float32, True),
        (8 * MIB + 1, 1, False, torch.float32, False),
        (2048, 32, False, torch.float32, True),  # the quickstart
        (4096, 49152, False, torch.float32, False),
        (4 * MIB, 1, True, torch.float32, True),  # the layer gathers twice as many
        (4 * MIB + 1, 1, True, torch.float32, False),
        (2048, 32, False, torch.bfloat16, False),  # there the logits of verl's path are rounded
    ],
)
def test_small_logits_are_computed_at_once(positions, rows, sequence_parallel, dtype, small):
    assert vocabulary.BLOCK_BYTES_CPU == 32 * MIB
    hidden = torch.empty(1, dtype=dtype).expand(positions, 1, 1)
    assert output_layer._is_small(hidden, layer(rows, sequence_parallel, 2)) is small


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_ranks_share_the_hidden_states_and_their_gradient(monkeypatch, sequence_parallel):
    """Megatron's mappings: a copy whose gradient is summed, or with sequence parallelism a gathering."""
    mappings = importlib.import_module("megatron.core.tensor_parallel.mappings")
    called, passed = [], []
    for name in ("gather_from_sequence_parallel_region", "copy_to_tensor_model_parallel_region"):
        monkeypatch.setattr(mappings, name, lambda hidden, group, name=name: called.append((name, group)) or hidden)
    monkeypatch.setattr(output_layer, "log_probs_and_entropies", lambda *arguments: passed.append(arguments))
    of_layer, hidden, labels = layer(8, sequence_parallel, 2), torch.zeros(6, 1, 4), torch.arange(6)[None]
    output_layer._in_blocks(hidden, of_layer, "weight", labels, 0.5)
    expected = "gather_from_sequence_parallel_region" if sequence_parallel else "copy_to_tensor_model_parallel_region"
    assert called == [(expected, of_layer.tp_group)]
    ((flat, weight, targets, temperature, group, entropy),) = passed
    assert flat.shape == (6, 4) and weight == "weight" and torch.equal(targets, labels[0])
    assert (temperature, group, entropy) == (0.5, of_layer.tp_group, True)


def test_the_entropy_is_computed_where_it_is_wanted(monkeypatch):
    """verl tells its forward function whether it is, and not the function that computes it."""
    module = importlib.import_module(FUSED)
    seen = []
    monkeypatch.setattr(output_layer, "_is_small", lambda *_: True)
    monkeypatch.setattr(output_layer, "_at_once", lambda *_: seen.append(output_layer._entropy_wanted.get()) or (1, 2))

    def model(output_processor, output_processor_context, **_):
        return output_processor(
            hidden_states=None,
            output_layer=SimpleNamespace(weight=None),
            output_weight=None,
            labels=None,
            context=output_processor_context,
            config=None,
        )

    def make_forward(*_):
        def forward(model, calculate_entropy):
            context = module.FusedOutputProcessorContext(temperature=1.0)
            return model(output_processor=module.fused_output_processor, output_processor_context=context)

        return forward

    upstream = SimpleNamespace(
        fused_forward_model_engine=make_forward,
        fused_output_processor=None,
        CausalLMOutputForPPO=module.CausalLMOutputForPPO,
    )
    monkeypatch.setattr(output_layer, "replace", lambda owner, name, value: setattr(owner, name, value))
    output_layer.compute_in_blocks.apply(upstream)
    forward = upstream.fused_forward_model_engine()
    for wanted in (True, False, True):
        output = forward(model, calculate_entropy=wanted)
        assert (output.log_probs, output.entropy) == (1, 2)
    assert seen == [True, False, True]


def test_verl_still_fuses_the_output_layer_by_triton_kernels_only():
    """The day this fails, look whether `speed/output_layer.py` can go."""
    importlib.import_module(FUSED)
    upstream = ORIGINALS[f"{FUSED}:fused_output_processor"]
    names = set(inspect.signature(upstream).parameters)
    assert {"hidden_states", "output_layer", "output_weight", "labels", "context", "config"} <= names
    assert "linear_cross_entropy(" in inspect.getsource(upstream)
    kernels = importlib.import_module("verl.utils.kernel.kernels")
    for function in (kernels.efficient_entropy_forward, kernels.efficient_entropy_backward):
        source = inspect.getsource(function)
        assert "assert hidden.is_cuda" in source and "assert hidden_size % 128 == 0" in source
    # The gradient of the hidden states is not added up over the tensor-parallel ranks.
    assert "all_reduce" not in inspect.getsource(kernels.efficient_entropy_backward)
    forward = inspect.getsource(ORIGINALS[f"{FUSED}:fused_forward_model_engine"])
    assert "FusedOutputProcessorContext(temperature=temperature)" in forward  # says nothing of the entropy
