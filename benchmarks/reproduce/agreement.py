"""Does a repetition of some cells agree with the kept record? By method and level, with the record's tolerance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.reproduce.estimates import by_base, spread, t_quantile
from benchmarks.reproduce.records import AVERAGE, Record, of_method
from benchmarks.reproduce.study import StudyError
from verl_relift.quickstart.summary import LEVELS

COMPARED = (*LEVELS, AVERAGE)
FALSE_ALARMS = 0.05  # chance that a faithful repetition disagrees somewhere


@dataclass(frozen=True)
class Row:
    """One method and measure, on the bases that were repeated."""

    method: str
    measure: str
    repeated: float
    recorded: float
    tolerance: float
    cells: tuple[int, int]  # repeated, recorded

    @property
    def agrees(self) -> bool:
        """Whether the repetition lies within the tolerance."""
        return abs(self.repeated - self.recorded) <= self.tolerance


def compare(repeated: Sequence[Record], recorded: Sequence[Record]) -> list[Row]:
    """A row per method and measure.

    The tolerance is t s sqrt(1/n + 1/m): n repeated cells, m of the record on the same bases, s the record's spread
    between seeds, but not below the sampling error of its questions, t Student's for FALSE_ALARMS over all rows.

    Raises:
        StudyError: the record lacks a method or base, has one seed only, or was made on other settings.
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
                raise StudyError(f"the record has one seed of {method}: no spread to judge by")
            found = [fmean(record.measure(measure) for record in side) for side in (ours, theirs)]
            deviation = max(chance.deviation, sampling_error(theirs[0], measure))
            scale = math.sqrt(1 / len(ours) + 1 / len(theirs))
            tolerance = t_quantile(probability, chance.freedom) * deviation * scale
            rows.append(Row(method, measure, *found, tolerance, (len(ours), len(theirs))))
    return rows


def _check(method: str, ours: Sequence[Record], theirs: Sequence[Record]) -> None:
    if {record.base for record in ours} != {record.base for record in theirs}:
        raise StudyError(f"the record has no cells of {method} on these bases")
    made = {record.base: record.settings | {"seed": None} for record in ours}
    for record in theirs:
        if record.settings | {"seed": None} != made[record.base]:
            raise StudyError(f"the record's cell {record.cell} was made with other settings")


def sampling_error(record: Record, measure: str) -> float:
    """Standard error from a level's number of questions, with one right and one wrong answer added so that it is
    never zero; of the average, that of the mean of independent levels.
    """
    levels = LEVELS if measure == AVERAGE else (measure,)
    variance = 0.0
    for level in levels:
        questions = record.questions[level]
        share = (record.levels[level] * questions + 1) / (questions + 2)
        variance += share * (1 - share) / questions
    return math.sqrt(variance) / len(levels)


def table(rows: Sequence[Row]) -> str:
    """For people."""
    lines = [f"{'method':<18} {'level':<9} {'now':>6} {'record':>7} {'difference':>11} {'tolerance':>10}"]
    for row in rows:
        verdict = "agrees" if row.agrees else "DISAGREES"
        lines.append(
            f"{row.method:<18} {row.measure:<9} {row.repeated:>6.3f} {row.recorded:>7.3f} "
            f"{row.repeated - row.recorded:>+11.3f} {row.tolerance:>10.3f}  {verdict}"
        )
    return "\n".join(lines)
