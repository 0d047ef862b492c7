"""Run a study: `python -m benchmarks.evidence --study small|real --output DIR [--block NAME ...] [--cell NAME ...]`

After an interruption, the same command continues. Each cell that is done has a record in
benchmarks/results/evidence/<study>/, and `python -m benchmarks.evidence.report` writes docs/evidence.md from them.
"""

import argparse
import shutil
import signal
import sys
from pathlib import Path

from benchmarks.cells import Work, run_cells
from benchmarks.evidence import cell as cells
from benchmarks.evidence import records, tasks
from benchmarks.evidence.cell import Place
from benchmarks.evidence.design import ALL, FIRST_PASS, Cell, Study, every_cell, needs, trials, with_needed
from benchmarks.evidence.design import cells as planned_cells
from benchmarks.reproduce.__main__ import say
from benchmarks.reproduce.study import StudyError


def main() -> int:
    """Run the command.

    Returns:
        The exit status: 0: all cells are done; 1: cells failed; 2: invalid arguments.
    """
    options = _parser().parse_args()
    study = ALL[options.study]
    # SIGTERM unwinds like Ctrl-C, so that running cells end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        planned = plan(study, options)
        if options.list:
            print(listing(study, planned, options.records))
            return 0
        if options.output is None:
            raise StudyError("--output: name the folder of questions, base models and runs")
        sources = {name: getattr(options, name) or source for name, source in tasks.SOURCES.items()}
        place = Place(options.output.resolve(), options.records.resolve(), sources, options.untuned)
        missing = run(study, planned, place, options.jobs)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    if missing:
        print(f"missing: {', '.join(missing)}; run the same command again to retry", file=sys.stderr)
    return 1 if missing else 0


def plan(study: Study, options: argparse.Namespace) -> list[Cell]:
    """Return the cells that the options ask for, each after those that it needs.

    Raises:
        StudyError: there is no such cell or block.
    """
    for block in options.block:
        if block not in study.blocks:
            raise StudyError(f"--block {block}: study {study.name} has {', '.join(study.blocks)}")
    if options.cell:
        seeds = {int(name.rpartition("-seed")[2]) for name in options.cell if name.rpartition("-seed")[2].isdecimal()}
        known = {cell.name: cell for cell in every_cell(study, seeds)}
        for name in options.cell:
            if name not in known:
                raise StudyError(f"--cell {name}: study {study.name} has no such cell; --list names them")
        wanted = [known[name] for name in options.cell]
    else:
        whole = [] if options.block or options.untuned else trials(study)
        wanted = whole + planned_cells(study, options.block or FIRST_PASS, options.seeds)
    if options.untuned:
        return [cell for cell in with_needed(study, wanted) if cell.tried is None or cell in wanted]
    return with_needed(study, wanted)


def listing(study: Study, planned: list[Cell], folder: Path) -> str:
    """Return a line for each cell: whether it is done, and its name."""
    done = {record.cell for record in records.read_all(folder, study.name)}
    lines = [f"{'done' if cell.name in done else '    '}  {cell.name}" for cell in planned]
    counted = sum(cell.name in done for cell in planned)
    return "\n".join([*lines, f"{counted} of {len(planned)} cells are done"])


def run(study: Study, planned: list[Cell], place: Place, jobs: int) -> list[str]:
    """Run the cells that are not done and return the names of those that are still missing.

    Raises:
        StudyError: records were made with other settings.
    """
    done: set[str] = set()
    refused = []
    for cell in planned:
        try:
            if cells.is_done(study, cell, place, done):
                done.add(cell.name)
        except StudyError as error:
            refused.append(str(error))
    if refused:
        raise StudyError("\n".join(refused))

    def finish(cell: Cell, seconds: float) -> str:
        record = cells.record(study, cell, place, seconds)
        records.write(place.records, record)
        for checkpoint in list(place.run(cell.name).rglob("global_step_*")):
            shutil.rmtree(checkpoint, ignore_errors=True)  # nothing starts from it
        found = records.measures(record.right, cell.setting.train)
        accuracies = ", ".join(f"{name} {record.accuracy(sources):.3f}" for name, sources in found.items())
        return f"{accuracies}, {record.demonstrations} demonstrations, {record.seconds:.0f} s"

    names = {cell.name for cell in planned}
    work = Work(
        lambda cell: [name for name in needs(study, cell) if name in names],
        lambda cell: cells.command(study, cell, place),
        finish,
        place.run,
        resumes=study.name == "real",
    )
    return run_cells(planned, done, work, jobs, say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--study", choices=ALL, default="small")
    parser.add_argument("--output", type=Path, help="folder of the study; a study found there is continued")
    parser.add_argument("--list", action="store_true", help="name the cells and whether they are done; run nothing")
    parser.add_argument(
        "--block", nargs="+", default=[], metavar="NAME", help=f"parts of the study; default: {', '.join(FIRST_PASS)}"
    )
    parser.add_argument("--cell", nargs="+", default=[], metavar="NAME", help="these cells, and those that they need")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="default: the study's")
    parser.add_argument("--jobs", type=int, default=1, help="concurrent cells; default %(default)s")
    parser.add_argument(
        "--untuned", action="store_true", help="without the search: every knob has its middle value; no table counts it"
    )
    parser.add_argument("--records", type=Path, default=records.FOLDER, help="folder of the records")
    for name, source in tasks.SOURCES.items():
        parser.add_argument(f"--{name}", metavar="FOLDER", help=f"where its problems are; default: {source}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
