"""Megatron's mixed precision on a CPU, bf16 with fp32 masters, against Hugging Face in bf16 and against fp32."""

import pytest
import torch

from verl_relift.testing.parity.ranks import run_ranks, save_model
from verl_relift.testing.parity.reference import LOSSES, log_probs_and_entropies

LAYOUTS = ["TP1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("TP2", "DP2", "PP2"))]
# Of Hugging Face's error: tensor-parallel ranks round their parts of a sum before they add them up.
MOST = 1.5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(model in fp32, whose weights are bf16 numbers, its folder)."""
    folder = tmp_path_factory.mktemp("model")
    made = save_model("qwen2", folder)
    made.load_state_dict({name: value.bfloat16().float() for name, value in made.state_dict().items()})
    made.save_pretrained(folder)
    return made, folder


@pytest.fixture(scope="module", params=LAYOUTS)
def found(request, model, tmp_path_factory):
    """What each data-parallel replica found: (outputs and gradients, training) by dtype."""
    return run_ranks("precision_worker", model[1], tmp_path_factory.mktemp(request.param) / "out", request.param)


def error(rows: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The root of the mean squared difference."""
    return torch.cat([a.float() - b for a, b in zip(rows, expected, strict=True)]).square().mean().sqrt().item()


def test_log_probs_are_as_near_to_fp32_as_those_of_hugging_face_in_bf16(model, found):
    with torch.no_grad():
        exact = log_probs_and_entropies(model[0])
        theirs = log_probs_and_entropies(model[0].bfloat16())
        model[0].float()
    for rank, replica in enumerate(found):
        share = slice(rank, None, len(found))
        for name, of_exact, of_theirs in zip(("log_probs", "entropy"), exact, theirs, strict=True):
            rows = replica["bfloat16"][0]["outputs"][name]
            rows = [row[:-1] for row in rows] if name == "log_probs" else rows
            assert 0 < error(rows, of_exact[share]) <= MOST * error(of_theirs[share], of_exact[share])


@pytest.mark.parametrize("name", ["supervised", "policy_reusing", "spliced_reusing"])
def test_gradients_are_as_near_to_fp32_as_those_of_hugging_face_in_bf16(model, found, name):
    def gradient(of: torch.nn.Module) -> torch.Tensor:
        of.zero_grad()
        LOSSES[name](of).backward()
        return torch.cat([parameter.grad.flatten().float() for parameter in of.parameters()])

    exact, theirs = gradient(model[0]), gradient(model[0].bfloat16())
    names = [parameter for parameter, _ in model[0].float().named_parameters()]
    for replica in found:
        gradients = replica["bfloat16"][0][name][1]
        ours = torch.cat([gradients[parameter].flatten().float() for parameter in names])
        assert 0 < (ours - exact).norm() <= MOST * (theirs - exact).norm() < 0.1 * exact.norm()


def test_fifty_updates_lead_where_fp32_leads(model, found):
    """Each moves the weights by less than bf16 numbers are apart, so that without masters none would move."""
    for replica in found:
        fp32, bf16 = (replica[dtype][1] for dtype in ("float32", "bfloat16"))
        assert fp32["losses"][-1] < 0.9 * fp32["losses"][0]
        losses = [torch.tensor(of["losses"]) for of in (bf16, fp32)]
        torch.testing.assert_close(*losses, atol=0, rtol=0.05)
        torch.testing.assert_close(*(of[-10:].mean() for of in losses), atol=0, rtol=0.02)
        first = dict(model[0].named_parameters())
        moved = {name: weight - first[name].detach() for name, weight in fp32["weights"].items()}
        ours = torch.cat([(bf16["weights"][name].float() - first[name].detach()).flatten() for name in moved])
        theirs = torch.cat([way.flatten() for way in moved.values()])
        assert torch.cosine_similarity(ours, theirs, dim=0) > 0.8


def test_masters_are_in_fp32_and_more_than_the_weights_tell(found):
    for replica in found:
        training = replica["bfloat16"][1]
        assert set(training["masters"]) == {torch.float32}
        assert all(weight.dtype == torch.bfloat16 for weight in training["weights"].values())
        assert 2**-10 < training["rounded"] <= 2**-8
