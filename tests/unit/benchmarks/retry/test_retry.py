"""The cost of a second round, by hand."""

import pytest

from benchmarks.retry.__main__ import overhead


def test_the_cost_is_what_generation_rises_by_per_token():
    records = [
        {
            "step": step,
            "timing_s/gen": 9.0 if step <= 2 else 2.0 if step < 5 else 7.0 if step == 5 else 4.2,
            "perf/total_num_tokens": 1500,
            "response_length/mean": 100.0,
            "prompt_length/mean": 50.0,
            "method/second_round_tokens": 0 if step < 5 else 1000,
        }
        for step in range(1, 9)
    ]
    ratio, first, second = overhead(records, 5)
    assert (first, second) == pytest.approx((2000.0, 2200.0))
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((1.1, 1.1, 1.1))
