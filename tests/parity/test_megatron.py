"""Megatron through verl's engine against Hugging Face and plain PyTorch, fp32, on CPU processes over gloo."""

import pytest
import torch

from verl_relift.testing.parity.batch import SPLITS
from verl_relift.testing.parity.ranks import LAYOUTS, run_ranks, save_model
from verl_relift.testing.parity.reference import LOSSES, log_probs_and_entropies


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A function from (kind, layout) to (model, what each replica wrote), run once per pair."""
    made = {}

    def get(kind: str, layout: str):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = (save_model(kind, folder), folder, {})
        model, folder, layouts = made[kind]
        if layout not in layouts:
            layouts[layout] = None  # so that a failed start is not repeated by every test
            layouts[layout] = run_ranks(
                "engine_worker", folder, tmp_path_factory.mktemp(f"{kind}-{layout}") / "out", layout
            )
        assert layouts[layout] is not None, f"{kind} {layout} did not run; see the first failure"
        return model, layouts[layout]

    return get


CASES = [("qwen2", layout) for layout in LAYOUTS] + [
    pytest.param(kind, layout, marks=pytest.mark.slow)
    for kind in ("tied", "qwen3", "llama")
    for layout in ("TP1", "TP2", "PP2")
]


@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_log_probs_and_entropy_equal_hugging_face(results, kind, layout):
    model, replicas = results(kind, layout)
    with torch.no_grad():
        log_probs, entropies = log_probs_and_entropies(model)
    for rank, replica in enumerate(replicas):
        share = slice(rank, None, len(replicas))
        for ours, theirs in zip(replica["outputs"]["log_probs"], log_probs[share], strict=True):
            torch.testing.assert_close(ours[:-1], theirs, atol=1e-5, rtol=0)
        for ours, theirs in zip(replica["outputs"]["entropy"], entropies[share], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_exported_weights_equal_the_loaded_ones(results, kind, layout):
    model, replicas = results(kind, layout)
    expected = model.state_dict()
    if model.config.tie_word_embeddings:
        expected.pop("lm_head.weight")
    for replica in replicas:
        assert set(replica["weights"]) - {"lm_head.weight"} == set(expected) - {"lm_head.weight"}
        for name, tensor in replica["weights"].items():
            assert torch.equal(tensor, model.state_dict()[name]), name


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_loss_and_gradient_equal_plain_pytorch_for_any_split(results, kind, layout, name):
    model, replicas = results(kind, layout)
    model.zero_grad()
    loss = LOSSES[name](model)
    loss.backward()
    expected = {n: parameter.grad for n, parameter in model.named_parameters()}
    for replica in replicas:
        assert set(replica[name]) == set(SPLITS)
        for max_tokens, (ours, gradients) in replica[name].items():
            # Relative, because neighboring fp32 numbers near a loss of 5 are 5e-7 apart.
            assert ours == pytest.approx(loss.item(), rel=1e-6), max_tokens
            for parameter, gradient in expected.items():
                torch.testing.assert_close(
                    gradients[parameter],
                    gradient,
                    atol=1e-6,
                    rtol=0,
                    msg=lambda m, p=parameter, t=max_tokens: f"{p}, split {t}: {m}",
                )
