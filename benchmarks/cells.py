"""Runs the cells of a study, several at a time. A cell is a command; it is done when its record exists."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from verl_relift.testing.launch import kill

POLL_S = 0.5


class Named(Protocol):
    """A cell: whatever has a name."""

    @property
    def name(self) -> str:
        """Name of the cell and of its files."""


@dataclass(frozen=True)
class Work[C: Named]:
    """How cells are run.

    Attributes:
        needs: names of the cells that must be done before a cell.
        command: arguments of `python -m` that run a cell.
        finish: writes the record of a cell whose command has succeeded, from its wall-clock seconds; returns what to
            say about it.
        folder: of the run of the cell of a name. Its log is beside it.
        resumes: whether a run that was killed continues; otherwise it starts over.
    """

    needs: Callable[[C], Collection[str]]
    command: Callable[[C], list[str]]
    finish: Callable[[C, float], str]
    folder: Callable[[str], Path]
    resumes: bool = False


@dataclass
class Running[C: Named]:
    """A cell that runs, with its process and its start in seconds of the monotonic clock."""

    cell: C
    process: subprocess.Popen
    began: float = field(default_factory=time.monotonic)


def ready[C: Named](todo: Sequence[C], done: Collection[str], needs: Callable[[C], Collection[str]]) -> C | None:
    """Return the first cell of `todo` whose predecessors are done, or None."""
    return next((cell for cell in todo if all(name in done for name in needs(cell))), None)


def run_cells[C: Named](
    cells: Sequence[C], done: Collection[str], work: Work[C], jobs: int, say: Callable[[str], None]
) -> list[str]:
    """Run the cells that are not done.

    A cell that fails is reported and skipped, together with cells that need it; the others continue.

    Args:
        cells: the cells, each after those that it needs.
        done: names of the cells that are done.
        work: how they are run.
        jobs: number of concurrent cells.
        say: reports a line of progress.

    Returns:
        Names of the cells that are still missing.
    """
    finished = set(done) & {cell.name for cell in cells}
    todo = [cell for cell in cells if cell.name not in finished]
    say(f"{len(finished)} of {len(cells)} cells are done")
    running: list[Running[C]] = []
    missing: list[str] = []
    try:
        while todo or running:
            while len(running) < jobs and (cell := ready(todo, finished, work.needs)):
                todo.remove(cell)
                running.append(_start(cell, work))
            if not running:
                break  # the remaining cells need cells that failed
            time.sleep(POLL_S)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                name, status = one.cell.name, one.process.returncode
                if status:
                    missing.append(name)
                    say(f"{name} exited with status {status}; see {_log(work.folder(name))}")
                    continue
                said = work.finish(one.cell, time.monotonic() - one.began)
                finished.add(name)
                say(f"{len(finished)}/{len(cells)} {name}: {said}")
    finally:
        for one in running:
            kill(one.process)
    return [*missing, *(cell.name for cell in todo)]


def _start[C: Named](cell: C, work: Work[C]) -> Running[C]:
    folder = work.folder(cell.name)
    if not work.resumes:
        shutil.rmtree(folder, ignore_errors=True)  # remains of a killed study
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", *work.command(cell)]
    # Each cell starts its own Ray. An address in the environment would make them share one.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with open(_log(folder), "w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
    return Running(cell, process)


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")  # a name may have dots, which with_suffix cuts off
