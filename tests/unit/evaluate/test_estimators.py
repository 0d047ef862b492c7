"""Tests avg@n, pass@k, majority@n and their intervals against enumeration and plain resampling."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_relift.evaluate import estimators


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n):
    for right in range(n + 1):
        verdicts = [True] * right + [False] * (n - right)
        for k in range(1, n + 1):
            subsets = list(combinations(verdicts, k))
            assert estimators.pass_at_k(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_1_is_the_average_and_pass_at_n_is_any():
    assert estimators.pass_at_k(32, 7, 1) == pytest.approx(estimators.average([True] * 7 + [False] * 25))
    assert estimators.pass_at_k(32, 1, 32) == 1.0
    assert estimators.pass_at_k(32, 0, 32) == 0.0


@pytest.mark.parametrize(("n", "right", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_outside_its_domain_is_an_error(n, right, k):
    with pytest.raises(ValueError, match="not defined"):
        estimators.pass_at_k(n, right, k)


def test_majority_takes_the_most_frequent_answer():
    assert estimators.majority(["13", " 13 ", "7"], [True, True, False]) == 1.0
    assert estimators.majority(["13", "7", "7"], [True, False, False]) == 0.0


def test_majority_of_a_tie_is_the_mean_and_does_not_depend_on_the_order():
    samples = [("13", True), ("7", False), ("13", True), ("7", False), ("1", False)]
    values = {estimators.majority(*zip(*order, strict=True)) for order in permutations(samples)}
    assert values == {0.5}


def test_samples_without_an_answer_have_no_vote():
    assert estimators.majority([None, None, "13"], [False, False, True]) == 1.0
    assert estimators.majority([None, None], [False, False]) == 0.0


def test_bootstrap_means_are_distributed_as_those_of_plain_resampling():
    values = np.random.default_rng(0).choice([0.0, 0.25, 0.5, 1.0], 80)
    rng = np.random.default_rng(1)
    plain = rng.choice(values, (20_000, 80)).mean(1)
    ours = estimators.bootstrap_means(list(values), np.random.default_rng(2), 20_000)
    assert ours.mean() == pytest.approx(plain.mean(), abs=2e-3)
    assert ours.std() == pytest.approx(plain.std(), rel=0.03)
    assert np.quantile(ours, [0.025, 0.975]) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.01)


def test_bootstrap_of_many_distinct_values_has_the_same_spread():
    values = np.random.default_rng(0).normal(size=300)
    ours = estimators.bootstrap_means(list(values), np.random.default_rng(2), 20_000)
    assert ours.std() == pytest.approx(values.std() / np.sqrt(300), rel=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        values = (rng.random(100) < 0.7).astype(float)
        low, high = estimators.interval(list(values), estimators.bootstrap_means(list(values), rng, 1_000))
        hits += low <= 0.7 <= high
    assert 0.90 <= hits / 300 <= 0.985


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_verdicts_are_not_certainty(value):
    values = [value] * 200
    low, high = estimators.interval(values, estimators.bootstrap_means(values, np.random.default_rng(0), 100))
    assert high - low == pytest.approx(1 - 0.025 ** (1 / 200))
    assert value in (low, high)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (0.0, lambda share: (-share, share)),
        (1.0, lambda share: (1 - 2 * share, 1.0)),
        (-1.0, lambda share: (-1.0, -1 + 2 * share)),
        (0.5, lambda share: (0.5 - 1.5 * share, 0.5 + 0.5 * share)),
    ],
)
@pytest.mark.parametrize("questions", [1, 30, 200])
def test_equal_pairs_are_not_certainty_either(difference, expected, questions):
    values = [difference] * questions
    bounds = (-1.0, 1.0)
    means = estimators.bootstrap_means(values, np.random.default_rng(0), 100, bounds)
    low, high = estimators.interval(values, means, bounds=bounds)
    assert (low, high) == pytest.approx(expected(1 - 0.025 ** (1 / questions)))
    assert -1 <= low <= difference <= high <= 1 and low < high


def test_an_average_over_sources_without_a_difference_is_not_certain():
    rng = np.random.default_rng(0)
    means = [estimators.bootstrap_means([0.0] * 40, rng, 4_000, (-1.0, 1.0)) for _ in range(3)]
    low, high = estimators.percentiles(np.mean(means, axis=0))
    assert -0.1 < low < -0.005 and 0.005 < high < 0.1


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=50), st.integers(0, 100))
def test_bootstrap_means_stay_within_the_values(values, seed):
    means = estimators.bootstrap_means(values, np.random.default_rng(seed), 50)
    low, high = (0.0, 1.0) if len(set(values)) == 1 else (min(values), max(values))
    assert low - 1e-12 <= means.min() and means.max() <= high + 1e-12
