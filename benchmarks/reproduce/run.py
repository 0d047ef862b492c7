"""Runs the cells of a study, several at a time. A cell is done when its record exists; otherwise it starts over."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.reproduce import cell as cells
from benchmarks.reproduce import records, task
from benchmarks.reproduce.cell import Folders
from benchmarks.reproduce.records import Record
from benchmarks.reproduce.study import Cell, Study, StudyError, predecessor, ready
from verl_relift.testing.launch import kill

POLL_S = 0.5


@dataclass
class Running:
    """A running cell.

    Attributes:
        cell: the cell.
        before: record of the cell that it needs, or None.
        process: its process.
        began: start in seconds of the monotonic clock.
    """

    cell: Cell
    before: Record | None
    process: subprocess.Popen
    began: float = field(default_factory=time.monotonic)


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
    todo = [cell for cell in plan if cell.name not in finished]
    say(f"{len(finished)} of {len(plan)} cells are done")
    running: list[Running] = []
    missing: list[str] = []
    try:
        while todo or running:
            while len(running) < jobs and (cell := ready(todo, finished)):
                todo.remove(cell)
                running.append(_start(study, cell, folders, finished))
            if not running:
                break  # the remaining cells need cells that failed
            time.sleep(POLL_S)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                if one.process.returncode:
                    missing.append(one.cell.name)
                    log = folders.run(one.cell.name).with_suffix(".log")
                    say(f"{one.cell.name} exited with status {one.process.returncode}; see {log}")
                    continue
                finished[one.cell.name] = record = _finish(study, one, folders)
                say(
                    f"{len(finished)}/{len(plan)} {one.cell.name}: average {record.measure(records.AVERAGE):.3f}, "
                    f"hardest {record.levels['hardest']:.3f}, {record.seconds:.0f} s"
                )
    finally:
        for one in running:
            kill(one.process)
    return [*missing, *(cell.name for cell in todo)]


def _start(study: Study, cell: Cell, folders: Folders, finished: dict[str, Record]) -> Running:
    folder = folders.run(cell.name)
    shutil.rmtree(folder, ignore_errors=True)  # remains of a killed study
    folder.parent.mkdir(parents=True, exist_ok=True)
    before = finished[predecessor(cell)] if cell.method.after else None
    command = [sys.executable, "-m", *cells.command(study, cell, folders, before)]
    # Each cell starts its own Ray. An address in the environment would make them share one.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with open(folder.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
    return Running(cell, before, process)


def _finish(study: Study, one: Running, folders: Folders) -> Record:
    record = cells.record(study, one.cell, folders, one.before, time.monotonic() - one.began)
    records.write(folders.record(one.cell.name), [record])
    return record


def read_done(folder: Path) -> list[Record]:
    """Return all records in a study's folder."""
    return records.read(folder / "cells")
