"""Megatron through verl's engine against Hugging Face and plain PyTorch, fp32, on CPU processes over gloo."""

import pytest
import torch

from verl_relift.testing.parity.batch import OUTPUT_LAYERS, SPLITS
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


@pytest.mark.parametrize("how", OUTPUT_LAYERS)
@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_log_probs_and_entropy_equal_hugging_face(results, kind, layout, how):
    model, replicas = results(kind, layout)
    with torch.no_grad():
        log_probs, entropies = log_probs_and_entropies(model)
    for rank, replica in enumerate(replicas):
        share = slice(rank, None, len(replicas))
        for ours, theirs in zip(replica[how]["outputs"]["log_probs"], log_probs[share], strict=True):
            torch.testing.assert_close(ours[:-1], theirs, atol=1e-5, rtol=0)
        for ours, theirs in zip(replica[how]["outputs"]["entropy"], entropies[share], strict=True):
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


@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_the_output_layer_is_the_same_to_the_last_bit_at_once_and_within_1e_6_in_blocks(results, kind, layout):
    for replica in results(kind, layout)[1]:
        apart, at_once, in_blocks = (_tensors(replica[how]) for how in OUTPUT_LAYERS)
        assert apart.keys() == at_once.keys() == in_blocks.keys()
        assert [key for key in apart if not torch.equal(apart[key], at_once[key])] == []
        for key in apart:
            torch.testing.assert_close(
                in_blocks[key], apart[key], atol=1e-6, rtol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
            )


def _tensors(found: dict) -> dict[tuple, torch.Tensor]:
    """Outputs, losses and gradients by where they stand."""
    tensors = {(name, row): v for name, values in found["outputs"].items() for row, v in enumerate(values)}
    for name in LOSSES:
        for max_tokens, (loss, gradients) in found[name].items():
            tensors[name, max_tokens] = torch.tensor(loss)
            tensors |= {(name, max_tokens, parameter): gradient for parameter, gradient in gradients.items()}
    return tensors


@pytest.mark.parametrize("how", OUTPUT_LAYERS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_loss_and_gradient_equal_plain_pytorch_for_any_split(results, kind, layout, name, how):
    model, replicas = results(kind, layout)
    model.zero_grad()
    loss = LOSSES[name](model)
    loss.backward()
    expected = {n: parameter.grad for n, parameter in model.named_parameters()}
    for replica in replicas:
        assert set(replica[how][name]) == set(SPLITS)
        for max_tokens, (ours, gradients) in replica[how][name].items():
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
