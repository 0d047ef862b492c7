"""Runs the cells of a study, see `benchmarks.cells`. A cell that was cut off starts over."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.cells import Work, run_cells
from benchmarks.reproduce import cell as cells
from benchmarks.reproduce import records, task
from benchmarks.reproduce.cell import Folders
from benchmarks.reproduce.records import Record
from benchmarks.reproduce.study import Cell, Study, StudyError, needs, predecessor


def prepare(study: Study, plan: Sequence[Cell], folders: Folders) -> None:
    """Make the questions and base models that do not exist."""
    task.make_data(study.task, folders.data)
    for cell in {cell.base: cell for cell in plan}.values():
        task.make_base(cell.base, folders.data, folders.base(cell))


def done(study: Study, plan: Sequence[Cell], folders: Folders) -> dict[str, Record]:
    """Return the existing records by cell.

    Args:
        study: the study.
        plan: the cells to look for.
        folders: folders of the study.

    Raises:
        StudyError: a record was made with other settings.
    """
    found = {}
    for cell in plan:
        path = folders.record(cell.name)
        if not path.exists():
            continue
        found[cell.name] = record = records.from_json(path.read_text())
        if record.settings != cells.settings(study, cell):
            raise StudyError(f"{path} was made with other settings; choose another --output, or remove the file")
    return found


def run(study: Study, plan: Sequence[Cell], folders: Folders, jobs: int, say: Callable[[str], None]) -> list[str]:
    """Run the cells that have no record.

    A cell that fails is reported and skipped, together with cells that need it; the others continue.

    Args:
        study: the study.
        plan: the cells to run.
        folders: folders of the study.
        jobs: number of concurrent cells.
        say: reports a line of progress.

    Returns:
        Names of the cells that are still missing.
    """
    prepare(study, plan, folders)
    finished = done(study, plan, folders)

    def before(cell: Cell) -> Record | None:
        return finished[predecessor(cell)] if cell.method.after else None

    def finish(cell: Cell, seconds: float) -> str:
        finished[cell.name] = record = cells.record(study, cell, folders, before(cell), seconds)
        records.write(folders.record(cell.name), [record])
        average, hardest = record.measure(records.AVERAGE), record.levels["hardest"]
        return f"average {average:.3f}, hardest {hardest:.3f}, {record.seconds:.0f} s"

    work = Work(needs, lambda cell: cells.command(study, cell, folders, before(cell)), finish, folders.run)
    return run_cells(plan, finished, work, jobs, say)


def read_done(folder: Path) -> list[Record]:
    """Return all records in a study's folder."""
    return records.read(folder / "cells")
