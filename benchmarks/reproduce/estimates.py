"""Computes means, deviations and differences of methods, with the spread between seeds as the measure of chance."""

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
    """Summary of several values.

    Attributes:
        count: number of values.
        mean: their mean.
        deviation: sample standard deviation; None for a single value.
    """

    count: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Spread:
    """Standard deviation between seeds, pooled over groups of equal method and base.

    Attributes:
        deviation: the standard deviation; None if `freedom` is 0.
        freedom: degrees of freedom.
    """

    deviation: float | None
    freedom: int


@dataclass(frozen=True)
class Difference:
    """Mean difference of two methods.

    Attributes:
        value: the difference.
        half_width: half width of its confidence interval; None if the spread is unknown.
        freedom: degrees of freedom.
    """

    value: float
    half_width: float | None
    freedom: int


def summarize(values: Sequence[float]) -> Summary:
    """Return mean and deviation of one or more values.

    Raises:
        statistics.StatisticsError: there are no values.
    """
    return Summary(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def spread(groups: Sequence[Sequence[float]]) -> Spread:
    """Return the pooled spread: squared deviations from each group's mean / sum of the degrees of freedom."""
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return Spread(None, 0)
    squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    return Spread(math.sqrt(squares / freedom), freedom)


def by_base(records: Sequence[Record], measure: Measure) -> dict[str, list[float]]:
    """Return the measure of each cell, grouped by base."""
    groups = defaultdict(list)
    for record in records:
        groups[record.base].append(measure(record))
    return dict(groups)


def difference(ours: Sequence[Record], theirs: Sequence[Record], measure: Measure, level: float = 0.95) -> Difference:
    """Return the difference of two methods: the mean over common bases of the differences of their means.

    Bases are strata, so that their distance from each other does not count as chance. The standard error is the spread
    s, pooled over both methods and all bases, times sqrt(sum_b (1/n_b + 1/m_b)) / B. The interval uses Student's t.
    There is no interval if one method has a single seed on every base, because the other method's spread says nothing
    about its own.

    Args:
        ours: cells of the first method.
        theirs: cells of the second method.
        measure: the measure of a cell.
        level: confidence level.

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
    """Return whether the cells only evaluate a model; greedy evaluation gives the same accuracy with every seed."""
    return all(record.settings["method"]["kind"] == Kind.EVALUATE for record in records)


def t_quantile(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t distribution, by bisection.

    Args:
        probability: in [0.5, 1).
        freedom: degrees of freedom, at least 1.

    Raises:
        ValueError: an argument is out of range.
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
    """Return P(T <= t) for t >= 0 and Student's t, in closed form (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
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
