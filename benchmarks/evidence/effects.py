"""Estimates what a factor does, with intervals from questions, seeds and the other factors. Verdicts are computed.

An effect is a mean of paired differences between cells that differ in one thing. Its units are the pairs. The bootstrap
draws questions within each level, the same for all pairs, and units; its standard error is enlarged by sqrt(u / (u-1))
for u units and goes with Student's t of u-1 degrees of freedom. An effect of one unit has no interval. Holm's procedure
corrects the p-values of a family, which is one table.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

import numpy as np

from benchmarks.evidence.design import FACTORS
from benchmarks.evidence.records import Record
from benchmarks.reproduce.estimates import t_cumulative, t_quantile

DRAWS = 2000
CONFIDENCE = 0.95


class Verdict(StrEnum):
    """What an effect says, after the correction."""

    HIGHER = "higher"
    LOWER = "lower"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Effect:
    """An estimated effect.

    Attributes:
        name: what is compared.
        value: mean difference of accuracies.
        half_width: half width of its interval, without correction; None with one unit.
        p: two-sided p-value; 1 with one unit.
        units: number of pairs.
        cells: names of the cells that it rests on.
        corrected: the p-value after Holm's correction; None before it.
    """

    name: str
    value: float
    half_width: float | None
    p: float
    units: int
    cells: tuple[str, ...]
    corrected: float | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict at 5% of the family."""
        if self.corrected is None or self.corrected > 1 - CONFIDENCE:
            return Verdict.UNDECIDED
        return Verdict.HIGHER if self.value > 0 else Verdict.LOWER


# A unit: cells with the sign with which each enters the difference.
Unit = tuple[tuple[int, Record], ...]


def estimate(name: str, units: Sequence[Unit], sources: Sequence[str]) -> Effect:
    """Estimate the mean of differences.

    Args:
        name: what is compared.
        units: the differences.
        sources: data sources of the measure, each of the same weight.
    """
    by_source = [np.array([_difference(unit, source) for unit in units]) for source in sources]
    value = float(np.mean([found.mean() for found in by_source]))
    cells = tuple(sorted({record.cell for unit in units for _, record in unit}))
    if len(units) < 2:
        return Effect(name, value, None, 1.0, len(units), cells)
    rng, count = np.random.default_rng(0), len(units)
    # [units, draws]: each unit's difference on drawn questions.
    means = np.mean([_redrawn(found, rng) for found in by_source], axis=0)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).T / count
    error = float((means * weights).sum(axis=0).std(ddof=1)) * math.sqrt(count / (count - 1))
    if error == 0.0:
        return Effect(name, value, 0.0, 1.0 if value == 0.0 else 0.0, count, cells)
    half_width = t_quantile(0.5 + CONFIDENCE / 2, count - 1) * error
    return Effect(name, value, half_width, 2 * (1 - t_cumulative(abs(value) / error, count - 1)), count, cells)


def _difference(unit: Unit, source: str) -> np.ndarray:
    """Return the difference on each question."""
    return sum(sign * np.array(list(map(int, r.right[source]))) / r.samples for sign, r in unit)


def _redrawn(differences: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return means over drawn questions, [units, draws], from [units, questions]."""
    questions = differences.shape[1]
    weights = rng.multinomial(questions, np.full(questions, 1 / questions), size=DRAWS)
    return differences @ weights.T / questions


def holm(effects: Sequence[Effect]) -> list[Effect]:
    """Return effects with the p-values of Holm's step-down procedure, in their order."""
    order = sorted(range(len(effects)), key=lambda i: effects[i].p)
    corrected, largest = [0.0] * len(effects), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(effects) - rank) * effects[i].p))
        corrected[i] = largest
    return [replace(effect, corrected=p) for effect, p in zip(effects, corrected, strict=True)]


def combinations(cells: Iterable[Record]) -> list[Record]:
    """Return the cells that are a combination of the three factors, without trials and untuned ones."""
    return [record for record in cells if record.gate and record.tried is None and not record.untuned]


def main_effects(cells: Sequence[Record], sources: Sequence[str]) -> list[Effect]:
    """Return the effect of each level of each factor against the factor's first one.

    A unit is a pair of cells of one seed that differ in this factor alone.
    """
    found = []
    for factor, (reference, *others) in FACTORS.items():
        pairs = _pairs(cells, lambda record, f=factor: (record.seed, *_levels(record, without=(f,))), factor)
        for level in others:
            units = [((1, by[level]), (-1, by[reference])) for by in pairs if {level, reference} <= by.keys()]
            if units:
                found.append(estimate(f"{factor}: {level} against {reference}", units, sources))
    return found


def interactions(cells: Sequence[Record], sources: Sequence[str]) -> list[Effect]:
    """Return, for levels of two factors, by how much the effect of the one depends on the other.

    A unit is a difference of differences of four cells of one seed with the same level of the third factor.
    """
    found = []
    names = list(FACTORS)
    for first, second in ((names[0], names[1]), (names[0], names[2]), (names[1], names[2])):
        (a0, *others), (b0, *further) = FACTORS[first], FACTORS[second]
        (third,) = set(names) - {first, second}
        groups: dict[tuple, dict[tuple, Record]] = defaultdict(dict)
        for record in cells:
            place = getattr(record, first), getattr(record, second)
            groups[record.seed, getattr(record, third)][place] = record
        for a, b in product(others, further):
            corners = ((1, (a, b)), (-1, (a0, b)), (-1, (a, b0)), (1, (a0, b0)))
            units = [
                tuple((sign, by[corner]) for sign, corner in corners)
                for by in groups.values()
                if all(corner in by for _, corner in corners)
            ]
            if units:
                found.append(estimate(f"{first} {a} with {second} {b}", units, sources))
    return found


def pairs_of(
    cells: Sequence[Record], one: str, other: str, sources: Sequence[str], name: str | None = None
) -> Effect | None:
    """Return the difference of two treatments, seed by seed; None without a common seed."""
    sides = [{r.seed: r for r in cells if r.treatment == t and r.tried is None and not r.untuned} for t in (one, other)]
    units = [((1, sides[0][seed]), (-1, sides[1][seed])) for seed in sorted(sides[0].keys() & sides[1].keys())]
    return estimate(name or f"{one} against {other}", units, sources) if units else None


def interval(cells: Sequence[Record], sources: Sequence[str]) -> tuple[float, float]:
    """Return the mean accuracy of cells and the half width of its interval, from the number of questions alone."""
    unit = tuple((1, record) for record in cells)
    shares = [_difference(unit, source) / len(cells) for source in sources]
    variance = sum(float(share.var()) / len(share) for share in shares) / len(sources) ** 2
    return float(np.mean([share.mean() for share in shares])), 1.96 * math.sqrt(variance)


def _levels(record: Record, without: Sequence[str]) -> tuple[str, ...]:
    return tuple(getattr(record, factor) for factor in FACTORS if factor not in without)


def _pairs(cells: Sequence[Record], key: Callable[[Record], tuple], factor: str) -> list[Mapping[str, Record]]:
    """Return cells by level of a factor, one mapping for each value of the key."""
    groups: dict[tuple, dict[str, Record]] = defaultdict(dict)
    for record in cells:
        groups[key(record)][getattr(record, factor)] = record
    return list(groups.values())
