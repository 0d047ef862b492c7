"""Lengths and entropy that run away are said, once for each doubling."""

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
