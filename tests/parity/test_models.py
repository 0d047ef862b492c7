"""Megatron, Hugging Face and vLLM compute the same for every family and every field that the checks let through."""

import subprocess
import sys

import pytest
import torch

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
    assert difference < 2e-5


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_plain_pytorch(models, found, case):
    model = models[0][case]
    model.zero_grad()
    loss = supervised_loss(model)
    loss.backward()
    assert found[case]["loss"] == pytest.approx(loss.item(), rel=2e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            found[case]["gradients"][name], parameter.grad, atol=2e-6, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("case", CASES)
def test_exported_weights_are_the_checkpoints(models, found, case):
    """vLLM loads weights by the names of Hugging Face; so does an exported model."""
    expected = dict(models[0][case].named_parameters())  # a shared output layer is not among them
    assert found[case]["weights"].keys() == expected.keys()
    for name, tensor in found[case]["weights"].items():
        assert torch.equal(tensor, expected[name]), name


@pytest.fixture(scope="module")
def in_vllm(models, tmp_path_factory):
    """vLLM's log-probs, by case."""
    output = tmp_path_factory.mktemp("vllm") / "out.pt"
    command = [sys.executable, "-m", "verl_relift.testing.parity.vllm_worker", str(models[1]), str(output)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return torch.load(output, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_log_probs_of_vllm_equal_hugging_face(models, in_vllm, case, record_property):
    difference = largest_difference(models[0][case], in_vllm[case])
    record_property("largest difference", difference)
    assert difference < 2e-5
