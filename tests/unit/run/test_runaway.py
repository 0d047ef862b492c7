"""Lengths and entropy that run away are said, once for each doubling."""

import json

import pytest

from verl_relift.run.runaway import REFERENCE_STEPS, Runaway


def said(name: str, values: list[float]) -> list[str]:
    runaway = Runaway()
    return [line for step, value in enumerate(values, 1) for line in runaway.lines({name: value}, step)]


@pytest.mark.parametrize("name", ["response_length/mean", "actor/entropy"])
@pytest.mark.parametrize("factor", [3.5, 1 / 3.5])
def test_a_value_far_from_the_usual_one_is_said_once(name, factor):
    (line,) = said(name, [100.0] * REFERENCE_STEPS + [100.0, 100.0 * factor, 100.0 * factor])
    assert line.startswith(f"step {REFERENCE_STEPS + 2}: ") and name in line


def test_it_is_said_again_when_it_has_doubled():
    assert len(said("response_length/mean", [100.0] * REFERENCE_STEPS + [300.0, 400.0, 500.0, 600.0, 1200.0])) == 3


def test_what_varies_a_little_is_not_said():
    assert said("actor/entropy", [1.0, 0.6] * REFERENCE_STEPS + [2.0]) == []
    assert said("actor/entropy", [0.0] * REFERENCE_STEPS + [2.0]) == []  # nothing to compare with


def test_a_metric_that_is_missing_is_not_watched():
    assert list(Runaway().lines({}, 1)) == []


@pytest.mark.parametrize("cut", [0, 1, REFERENCE_STEPS - 1, REFERENCE_STEPS, REFERENCE_STEPS + 2, REFERENCE_STEPS + 4])
def test_a_resumed_run_says_what_the_uninterrupted_one_says(cut):
    """Inside the first steps, after them, and after something has been said."""
    values = [float(100 + step % 3) for step in range(REFERENCE_STEPS)] + [101.0, 350.0, 400.0, 90.0, 720.0, 25.0, 10.0]
    metrics = [{"response_length/mean": value, "actor/entropy": 1.0 / value} for value in values]
    whole, before, after = Runaway(), Runaway(), Runaway()
    expected = [line for step, one in enumerate(metrics, 1) for line in whole.lines(one, step)]
    found = [line for step, one in enumerate(metrics[:cut], 1) for line in before.lines(one, step)]
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    found += [line for step, one in enumerate(metrics[cut:], cut + 1) for line in after.lines(one, step)]
    assert len(expected) == 4 and found == expected
