"""Repeats kept cells and compares: `python -m benchmarks.evidence.again --study small|real --output DIR`

After an interruption, the same command continues. A repeated cell has the values that the kept search has chosen. It
agrees if its average accuracy differs from the record's by no more than two samples of as many questions would, with a
probability of 99%. Exit status 1: one does not.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evidence import __main__ as evidence
from benchmarks.evidence import records, tasks
from benchmarks.evidence.cell import Place
from benchmarks.evidence.design import ALL, Study, every_cell
from benchmarks.evidence.effects import interval
from benchmarks.evidence.records import Record, measures
from benchmarks.reproduce.study import StudyError

# Repeated without --cell, those of them that have a record.
CELLS = {
    "small": (
        "grpo-main-seed1",
        "own_step.acc0.one-main-seed1",
        "spliced.acc0.one-main-seed1",
        "in_mean.always.shaped-main-seed1",
    ),
    "real": ("own_step.acc0.one-svamp-seed1",),
}
WIDTH = 2.576 / 1.96  # a 99% interval over a 95% one


def agrees(repeated: Record, kept: Record) -> tuple[float, float]:
    """Return the difference of average accuracies, and the largest one of cells that agree."""
    sources = measures(kept.right, kept.settings["train"])["average"]
    (now, first), (then, second) = (interval([record], sources) for record in (repeated, kept))
    return now - then, WIDTH * (first**2 + second**2) ** 0.5


def repeat(study: Study, names: Sequence[str], kept: Path, place: Place, jobs: int) -> int:
    """Repeat cells and print how far each is from its record.

    Args:
        study: the study.
        names: of the cells; without one, those of `CELLS` that have a record.
        kept: folder of the records.
        place: where the repetition's files are.
        jobs: number of concurrent cells.

    Returns:
        The exit status.

    Raises:
        StudyError: a cell has no record.
    """
    before = {record.cell: record for record in records.read_all(kept, study.name) if not record.untuned}
    wanted = list(names) or [name for name in CELLS[study.name] if name in before]
    missing = [name for name in wanted if name not in before]
    if missing or not wanted:
        raise StudyError(f"{kept / study.name}: no record of {missing[0] if missing else 'a cell'} to compare with")
    for record in before.values():  # the search, and what a cell matches, are not repeated
        if record.cell not in wanted:
            records.write(place.records, record)
    cells = [cell for cell in every_cell(study, {before[name].seed for name in wanted} | {1}) if cell.name in wanted]
    failed = evidence.run(study, cells, place, jobs)
    status = int(bool(failed))
    for name in (name for name in wanted if name not in failed):
        difference, allowed = agrees(place.record(study, name), before[name])
        verdict = "agrees" if abs(difference) <= allowed else "DISAGREES"
        status |= verdict != "agrees"
        print(f"{name:<45} {100 * difference:+6.1f} points, at most {100 * allowed:.1f}  {verdict}")
    return int(status)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=ALL, default="small")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cell", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--records", type=Path, default=records.FOLDER, help="folder of the kept records")
    for name, source in tasks.SOURCES.items():
        parser.add_argument(f"--{name}", metavar="FOLDER", help=f"where its problems are; default: {source}")
    options = parser.parse_args()
    sources = {name: getattr(options, name) or source for name, source in tasks.SOURCES.items()}
    root = options.output.resolve()
    try:
        place = Place(root, root / "records", sources)
        return repeat(ALL[options.study], options.cell, options.records, place, options.jobs)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
