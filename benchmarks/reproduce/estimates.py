"""Means, standard deviations and differences of methods, with the spread between seeds as the measure of chance."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from benchmarks.reproduce.records import Record
from benchmarks.reproduce.study import Kind

Measure = Callable[[Record], float]


@dataclass(frozen=True)
class Summary:
    """Of one method. deviation: sample standard deviation, None of a single cell."""

    count: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Spread:
    """Standard deviation between seeds, pooled over groups of equal method and base. None without `freedom`."""

    deviation: float | None
    freedom: int


@dataclass(frozen=True)
class Difference:
    """Mean difference of two methods with the half width of its confidence interval, None if no spread is known."""

    value: float
    half_width: float | None
    freedom: int


def summarise(values: Sequence[float]) -> Summary:
    """Raises ValueError (statistics.StatisticsError) without values."""
    return Summary(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def spread(groups: Sequence[Sequence[float]]) -> Spread:
    """Pooled over groups: the squared deviations from each group's mean, over the sum of the degrees of freedom."""
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return Spread(None, 0)
    squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    return Spread(math.sqrt(squares / freedom), freedom)


def by_base(records: Sequence[Record], measure: Measure) -> dict[str, list[float]]:
    """The measure of each cell, grouped by base."""
    groups = defaultdict(list)
    for record in records:
        groups[record.base].append(measure(record))
    return dict(groups)


def difference(ours: Sequence[Record], theirs: Sequence[Record], measure: Measure, level: float = 0.95) -> Difference:
    """Of two methods on the bases that both were trained on: the mean over bases of the differences of their means.

    Bases are strata, so that how far they are from each other does not count as chance. Its standard error is the
    spread s, pooled over both methods and all bases, times sqrt(sum_b (1/n_b + 1/m_b)) / B; Student's t for the
    interval. There is none while one of them has a single seed on every base: the other's spread says nothing about
    its own.

    Raises:
        ValueError: they have no base in common.
    """
    a, b = by_base(ours, measure), by_base(theirs, measure)
    bases = sorted(a.keys() & b.keys())
    if not bases:
        raise ValueError("no base was trained with both methods")
    value = fmean(fmean(a[base]) - fmean(b[base]) for base in bases)
    chance = spread([group[base] for group in (a, b) for base in bases])
    unknown = [
        not _is_deterministic(records) and spread([group[base] for base in bases]).deviation is None
        for records, group in ((ours, a), (theirs, b))
    ]
    if chance.deviation is None or any(unknown):
        return Difference(value, None, 0)
    error = chance.deviation * math.sqrt(sum(1 / len(a[base]) + 1 / len(b[base]) for base in bases)) / len(bases)
    return Difference(value, t_quantile(0.5 + level / 2, chance.freedom) * error, chance.freedom)


def _is_deterministic(records: Sequence[Record]) -> bool:
    """A model that is only evaluated, greedily, has the same accuracy with every seed."""
    return all(record.settings["method"]["kind"] == Kind.EVALUATE for record in records)


def t_quantile(probability: float, freedom: int) -> float:
    """Of Student's t distribution with `freedom` degrees, for a probability in [0.5, 1), by bisection.

    Raises:
        ValueError: outside of that.
    """
    if not (0.5 <= probability < 1 and freedom > 0):
        raise ValueError(f"quantile {probability} of Student's t with {freedom} degrees of freedom")
    low, high = 0.0, 1.0
    while t_cumulative(high, freedom) < probability:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_cumulative(middle, freedom) < probability else (low, middle)
    return high


def t_cumulative(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0, in closed form (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle) ** 2
    term, total = 1.0, 1.0
    first = 3 if freedom % 2 else 2
    for k in range(first, freedom - 1, 2):
        term *= cosine * (k - 1) / k
        total += term
    if freedom % 2:
        inner = math.sin(angle) * math.cos(angle) * total if freedom > 1 else 0.0
        return 0.5 + (angle + inner) / math.pi
    return 0.5 + math.sin(angle) * total / 2
