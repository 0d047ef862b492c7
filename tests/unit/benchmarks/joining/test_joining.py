"""The arithmetic of the benchmark."""

import pytest

from benchmarks.joining.__main__ import per_token


def record(step: int, **more: float) -> dict:
    times = {"timing_s/step": 10.0, "timing_s/gen": 5.0, "timing_s/update_weights": 1.0}
    return {"step": step, "perf/total_num_tokens": 1000, "prompt_length/mean": 50.0, **times, **more}


def test_cost_per_token_leaves_out_warm_up_and_sampling():
    records = [record(1, **{"timing_s/step": 99.0}), record(2), record(3), record(4)]
    assert per_token(records) == (pytest.approx(4000.0), pytest.approx(10000.0))


def test_a_batch_of_demonstrations_of_its_own_counts():
    more = {"relift/sft_loss": 1.0, "method/demonstrations_used": 4.0, "method/demonstration_tokens": 800.0}
    assert per_token([record(3, **more)])[1] == pytest.approx(5000.0)
