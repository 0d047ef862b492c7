"""Computes avg@n, pass@k and majority@n from graded samples, and bootstrap intervals of their means. Pure functions.

Each estimator returns one number per question. A benchmark's number is their mean, so that one bootstrap over questions
serves all estimators. Questions are the unit of resampling, because samples of one question are not independent.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_CHUNK = 2_000_000  # numbers drawn at once: 16 MB


def average(correct: Sequence[bool]) -> float:
    """Return avg@n of one question: the share of its n samples that are correct."""
    return sum(correct) / len(correct)


def pass_at_k(n: int, right: int, k: int) -> float:
    """Return the unbiased estimate of pass@k: 1 - C(n - right, k) / C(n, k) (arXiv 2107.03374, equation 1).

    The binomials are exact integers.

    Args:
        n: number of samples.
        right: number of correct samples.
        k: number of attempts.

    Raises:
        ValueError: unless 1 <= k <= n and 0 <= right <= n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass@{k} is not defined for {right} right of {n} samples")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Return majority@n of one question: whether its most frequent answer is correct.

    Answers are compared as text without whitespace. A sample without an answer does not vote. On a tie the result is
    the mean over the tied answers, which is the expected value of picking one of them at random.

    Args:
        answers: extracted answer of each sample, or None.
        correct: verdict of each sample.

    Returns:
        A number from 0 to 1; 0 if no sample has an answer.
    """
    votes: dict[str, list[bool]] = defaultdict(list)
    for answer, right in zip(answers, correct, strict=True):
        if answer is not None:
            votes["".join(answer.split())].append(right)
    if not votes:
        return 0.0
    most = max(map(len, votes.values()))
    return float(np.mean([np.mean(rights) for rights in votes.values() if len(rights) == most]))


def bootstrap_means(
    values: Sequence[float],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> NDArray[np.float64]:
    """Return the means of `resamples` bootstrap samples of `values`.

    A mean depends only on how often each distinct value is drawn, and these counts are multinomial. Per-question
    numbers take few distinct values, so that drawing counts costs far less than drawing questions. The distribution is
    the same.

    If all N values are equal, resampling would claim certainty. A share of questions that no sample showed, drawn from
    Beta(1, N), then has the lowest or the highest possible value instead.

    Args:
        values: one number per question.
        rng: source of randomness.
        resamples: number of bootstrap samples.
        bounds: the lowest and the highest number that a question can have.

    Returns:
        float64 [resamples].
    """
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    total = counts.sum()
    if len(distinct) == 1:
        unseen = rng.beta(1, total, resamples)
        return distinct[0] + unseen * (rng.choice(bounds, resamples) - distinct[0])
    means = np.empty(resamples)
    step = max(1, _CHUNK // len(distinct))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        means[start : start + size] = rng.multinomial(total, counts / total, size) @ distinct / total
    return means


def interval(
    values: Sequence[float],
    means: NDArray[np.float64],
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """Return the confidence interval of the mean of `values`.

    If all N values are equal, the share of questions with another value is at most 1 - ((1 - level) / 2)^(1/N), the
    exact binomial bound for 0 of N (Clopper and Pearson 1934). The interval then reaches as far as if that share had
    the lowest or the highest possible value. For 0 of N right answers this is the binomial interval itself.

    Args:
        values: one number per question.
        means: result of `bootstrap_means` on `values`, float64 [resamples].
        level: confidence level.
        bounds: the lowest and the highest number that a question can have.
    """
    first = values[0]
    if all(value == first for value in values):
        share = 1 - ((1 - level) / 2) ** (1 / len(values))
        low, high = (first + share * (bound - first) for bound in bounds)
        return low, high
    return percentiles(means, level)


def percentiles(means: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap means, float64 [resamples]."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
