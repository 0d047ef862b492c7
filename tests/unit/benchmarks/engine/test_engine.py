"""Tests the pure parts of the engine's benchmarks: what they count and fit."""

import pytest
import torch

from benchmarks.engine.batch import ROLLOUTS, SHAPES, Rollouts, configuration, make_sequences
from benchmarks.engine.growth import Curve, fit_slope
from benchmarks.engine.matrix_work import attention_flops, linear_flops, linears


def test_slope_of_a_power_law():
    sizes = [1, 10, 100]
    assert fit_slope(sizes, [3 * s**1.5 for s in sizes]) == pytest.approx(1.5)
    assert fit_slope(sizes, [7, 7, 7]) == pytest.approx(0)


@pytest.mark.parametrize(("exponent", "verdict"), [(1.0, "no"), (1.5, "**worse**")])
def test_a_curve_steeper_than_its_theory_is_worse(exponent, verdict):
    sizes = [1.0, 10.0, 100.0]
    curve = Curve("stage", "size", sizes, theory=1.0, seconds=[[s**exponent for s in sizes]] * 3)
    assert curve.cells()[-1] == verdict


@pytest.mark.parametrize("name", SHAPES)
def test_linear_layers_are_those_of_the_model(name):
    from transformers import Qwen2ForCausalLM

    shape = SHAPES[name]
    with torch.device("meta"):
        model = Qwen2ForCausalLM(configuration(shape))
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert sum(x.count * x.inputs * x.outputs for x in linears(shape)) == weights
    assert linear_flops(shape, tokens=10) == 6 * weights * 10


def test_attention_operations_count_pairs_that_a_position_sees():
    shape = SHAPES["quickstart"]
    alone = attention_flops(shape, [1])
    assert alone == 6 * 2 * shape.layers * shape.hidden
    assert attention_flops(shape, [3]) == 6 * alone
    assert attention_flops(shape, [1, 1, 3]) == 8 * alone


def test_rollouts_are_the_same_in_every_process():
    rollouts = Rollouts(sequences=4, prompt=3, shortest=5, longest=20)
    first, second = make_sequences(rollouts, 50), make_sequences(rollouts, 50)
    assert sorted(len(s.ids) for s in first) == [8, 13, 18, 23]
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, second, strict=True))
    assert all(len(s.old_log_probs) == len(s.ids) - 3 for s in first)


def test_every_model_has_rollouts():
    assert SHAPES.keys() == ROLLOUTS.keys()
