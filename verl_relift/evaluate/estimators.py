"""avg@n, pass@k and majority@n from graded samples, and bootstrap intervals for their means. Pure functions.

Every estimator gives one number a question; a benchmark's number is their mean, so one bootstrap over questions serves
all. Questions are the unit of resampling: samples of one question are not independent of each other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_CHUNK = 2_000_000  # numbers drawn at once: 16 MB


def average(correct: Sequence[bool]) -> float:
    """avg@n of one question: the share of its n samples that are right."""
    return sum(correct) / len(correct)


def pass_at_k(n: int, right: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of k samples is right, from n samples with `right` right:
    1 - C(n - right, k) / C(n, k) (arXiv 2107.03374, equation 1). Exact in integers.

    Raises ValueError unless 1 <= k <= n and 0 <= right <= n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass@{k} is not defined for {right} right of {n} samples")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """majority@n of one question: whether the answer given most often is right.

    Answers vote as texts without white space; a sample without an answer has no vote. Between answers with equally many
    votes the number is the mean, which is what drawing one of them would give on average. 0 when nobody answered.
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
    values: Sequence[float], rng: np.random.Generator, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Means of `resamples` bootstrap samples of `values`; float64 [resamples].

    A bootstrap sample enters its mean only by how often each distinct value is drawn, and those counts are multinomial.
    Per-question numbers take few distinct values, so this costs far less than drawing questions, and is the same thing.
    """
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    total = counts.sum()
    means = np.empty(resamples)
    step = max(1, _CHUNK // len(distinct))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        means[start : start + size] = rng.multinomial(total, counts / total, size) @ distinct / total
    return means


def interval(values: Sequence[float], means: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of `values`, whose bootstrap means are `means`.

    Where every question has the same number 0, or every one 1, all bootstrap samples are equal and would claim
    certainty. Then it is the exact binomial interval (Clopper and Pearson 1934): of 0 in N, from 0 to
    1 - ((1 - level) / 2)^(1/N).
    """
    first = values[0]
    if first in (0.0, 1.0) and all(value == first for value in values):
        edge = ((1 - level) / 2) ** (1 / len(values))
        return (0.0, 1 - edge) if first == 0 else (edge, 1.0)
    return percentiles(means, level)


def difference_interval(
    values: Sequence[float], means: NDArray[np.float64], level: float = 0.95
) -> tuple[float, float]:
    """As `interval`, of paired differences: where no question differs, what so many equal pairs leave possible."""
    if any(values):
        return percentiles(means, level)
    edge = 1 - ((1 - level) / 2) ** (1 / len(values))
    return -edge, edge


def percentiles(means: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap means."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
