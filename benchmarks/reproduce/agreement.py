"""Decides whether repeated cells agree with the kept record, by method and level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.reproduce.estimates import by_base, spread, t_quantile
from benchmarks.reproduce.records import AVERAGE, Record, of_method
from benchmarks.reproduce.study import StudyError
from verl_relift.quickstart.summary import LEVELS

COMPARED = (*LEVELS, AVERAGE)
FALSE_ALARMS = 0.05  # probability that a faithful repetition disagrees in any row


@dataclass(frozen=True)
class Row:
    """The comparison of one method and measure on the repeated bases.

    Attributes:
        method: name of the method.
        measure: name of the measure.
        repeated: mean over the repeated cells.
        recorded: mean over the record's cells.
        tolerance: largest difference of cells that agree.
        cells: number of repeated and of recorded cells.
    """

    method: str
    measure: str
    repeated: float
    recorded: float
    tolerance: float
    cells: tuple[int, int]

    @property
    def agrees(self) -> bool:
        """Whether the repetition lies within the tolerance."""
        return abs(self.repeated - self.recorded) <= self.tolerance


def compare(repeated: Sequence[Record], recorded: Sequence[Record]) -> list[Row]:
    """Compare repeated cells with the record.

    The tolerance is t s sqrt(1/n + 1/m) for n repeated cells and m recorded cells on the same bases. s is the record's
    spread between seeds, but at least the sampling error of its questions. t is Student's quantile for FALSE_ALARMS
    over all rows.

    Args:
        repeated: the repeated cells.
        recorded: the cells of the record.

    Returns:
        One row per method and measure.

    Raises:
        StudyError: the record lacks a method or base, has only one seed, or was made with other settings.
    """
    methods = sorted({record.method for record in repeated})
    probability = 1 - FALSE_ALARMS / (2 * len(methods) * len(COMPARED))
    rows = []
    for method in methods:
        ours = of_method(repeated, method)
        all_theirs = of_method(recorded, method)
        theirs = [record for record in all_theirs if record.base in {r.base for r in ours}]
        _check(method, ours, theirs)
        for measure in COMPARED:
            groups = by_base(all_theirs, lambda record, name=measure: record.measure(name))
            chance = spread(list(groups.values()))
            if chance.deviation is None:
                raise StudyError(f"the record has one seed of {method}, so its spread is unknown; record more seeds")
            found = [fmean(record.measure(measure) for record in side) for side in (ours, theirs)]
            deviation = max(chance.deviation, sampling_error(theirs[0], measure))
            scale = math.sqrt(1 / len(ours) + 1 / len(theirs))
            tolerance = t_quantile(probability, chance.freedom) * deviation * scale
            rows.append(Row(method, measure, *found, tolerance, (len(ours), len(theirs))))
    return rows


def _check(method: str, ours: Sequence[Record], theirs: Sequence[Record]) -> None:
    if {record.base for record in ours} != {record.base for record in theirs}:
        raise StudyError(f"the record has no cells of {method} on these bases; choose other methods with --only")
    made = {record.base: record.settings | {"seed": None} for record in ours}
    for record in theirs:
        if record.settings | {"seed": None} != made[record.base]:
            raise StudyError(f"the record's cell {record.cell} was made with other settings; record it again")


def sampling_error(record: Record, measure: str) -> float:
    """Return the standard error of a measure that comes from the number of questions.

    One correct and one wrong answer are added to each level, so that it is never 0. The average is a mean of
    independent levels.

    Args:
        record: a cell.
        measure: name of a level, or the average.
    """
    levels = LEVELS if measure == AVERAGE else (measure,)
    variance = 0.0
    for level in levels:
        questions = record.questions[level]
        share = (record.levels[level] * questions + 1) / (questions + 2)
        variance += share * (1 - share) / questions
    return math.sqrt(variance) / len(levels)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a text table."""
    lines = [f"{'method':<18} {'level':<9} {'now':>6} {'record':>7} {'difference':>11} {'tolerance':>10}"]
    for row in rows:
        verdict = "agrees" if row.agrees else "DISAGREES"
        lines.append(
            f"{row.method:<18} {row.measure:<9} {row.repeated:>6.3f} {row.recorded:>7.3f} "
            f"{row.repeated - row.recorded:>+11.3f} {row.tolerance:>10.3f}  {verdict}"
        )
    return "\n".join(lines)
