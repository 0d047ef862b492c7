"""Megatron computes what Hugging Face does, and vLLM has the same positions, for all that the checks let through."""

import pytest
import torch

from verl_relift.model_support import longest_sequence
from verl_relift.testing.parity.models import CASES, save_cases
from verl_relift.testing.parity.ranks import run_ranks
from verl_relift.testing.parity.reference import log_probs_and_entropies, supervised_loss

# Stages have names and copies of their own; the other layouts add little to what test_megatron.py compares.
LAYOUTS = ["PP2", pytest.param("TP1", marks=pytest.mark.slow), pytest.param("TP2", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(models by case, the folder that holds them)."""
    folder = tmp_path_factory.mktemp("models")
    return save_cases(folder), folder


@pytest.fixture(scope="module", params=LAYOUTS)
def found(request, models, tmp_path_factory):
    """What Megatron computes, by case."""
    return run_ranks("models_worker", models[1], tmp_path_factory.mktemp("found") / "out", request.param)[0]


def largest_difference(model: torch.nn.Module, log_probs: list[torch.Tensor]) -> float:
    """How far the log-probs of the batch are from Hugging Face's, at most."""
    with torch.no_grad():
        expected, _ = log_probs_and_entropies(model)
    return max(float((ours - theirs).abs().max()) for ours, theirs in zip(log_probs, expected, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_log_probs_equal_hugging_face(models, found, case, record_property):
    difference = largest_difference(models[0][case], found[case]["log_probs"])
    record_property("largest difference", difference)
    assert difference < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_plain_pytorch(models, found, case):
    model = models[0][case]
    model.zero_grad()
    loss = supervised_loss(model)
    loss.backward()
    assert found[case]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            found[case]["gradients"][name], parameter.grad, atol=1e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("case", CASES)
def test_exported_weights_are_the_checkpoints(models, found, case):
    """vLLM loads weights by the names of Hugging Face; so does an exported model."""
    expected = dict(models[0][case].named_parameters())  # a shared output layer is not among them
    assert found[case]["weights"].keys() == expected.keys()
    for name, tensor in found[case]["weights"].items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("case", CASES)
def test_positions_of_vllm_equal_hugging_face(models, case):
    """Linear scaling divides positions there and frequencies here, which rounds differently."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    config, rotary = models[0][case].config, models[0][case].model.rotary_emb
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    with set_current_vllm_config(VllmConfig()):
        theirs = get_rope(
            head_size, config.max_position_embeddings, rope_parameters=config.rope_parameters, dtype=torch.float32
        ).cos_sin_cache
    places = torch.arange(longest_sequence(config.to_dict()))
    cos, sin = rotary(torch.zeros(1), places[None])
    ours = torch.cat([part[0, :, : head_size // 2] for part in (cos, sin)], dim=-1)
    assert len(theirs) >= len(ours)
    torch.testing.assert_close(theirs[: len(ours)], ours, atol=1e-5, rtol=0)
