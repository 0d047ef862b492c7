"""Fewer points for the same curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .runs import Series


@dataclass(frozen=True, slots=True)
class Curve:
    """What is drawn: `x`, `y`, and the range `low` to `high` that each point stands for; float64 [points].

    steps_a_point: how many logged steps a point is the mean of; 1 means that every step is drawn.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    steps_a_point: int


def thin(series: Series, most: int) -> Curve:
    """Join neighbouring steps until at most `most` points are left: their mean, and their range.

    Steps with a value that is not finite are left out of a mean; a point without any finite value is NaN, a gap.
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
