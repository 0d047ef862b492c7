"""Reduces the number of points of a curve."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .runs import Series


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve to draw. All arrays are float64 [points].

    Attributes:
        x: steps; the mean step of each point.
        y: values; the mean of each point.
        low: smallest value of each point.
        high: largest value of each point.
        steps_per_point: number of logged steps per point.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    steps_per_point: int


def thin(series: Series, most: int) -> Curve:
    """Average neighboring steps until at most `most` points are left.

    A value that is not finite does not enter a mean. A point without any finite value is NaN, which draws as a gap.

    Args:
        series: the metric.
        most: largest number of points.
    """
    size = -(-len(series.steps) // most)
    steps, values = series.steps.astype(np.float64), series.values
    if size == 1:
        return Curve(steps, values, values, values, 1)
    starts = np.arange(0, len(steps), size)
    finite = np.isfinite(values)
    counts = np.add.reduceat(finite.astype(np.float64), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.add.reduceat(np.where(finite, values, 0.0), starts) / counts
    low = np.minimum.reduceat(np.where(finite, values, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, values, -np.inf), starts)
    empty = counts == 0
    low[empty] = high[empty] = np.nan
    lengths = np.diff(np.append(starts, len(steps)))
    return Curve(np.add.reduceat(steps, starts) / lengths, means, low, high, size)
