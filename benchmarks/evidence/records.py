"""Defines the record of a cell and reads and writes records: one JSON file each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.reproduce.records import Compute
from verl_relift.quickstart.summary import LEVELS
from verl_relift.run.folder import write_atomically

FOLDER = Path(__file__).parents[1] / "results" / "evidence"  # the kept records, by study
ARITHMETIC = "arithmetic/"  # begins the data sources of the small task


@dataclass(frozen=True)
class Record:
    """A finished cell.

    Attributes:
        cell: name of the cell.
        study: name of the study.
        setting: name of the setting.
        treatment: name of the treatment.
        gate, placement, weight: its levels, or empty.
        seed: seed of the cell.
        tried: the value of the knob of a trial, or None.
        chosen: value of each of the treatment's knobs, by its name.
        untuned: whether they are the knobs' middle values, because there was no search; no table counts such a cell.
        settings: everything that the numbers depend on, see `cell.settings`.
        samples: answers to each question.
        right: by data source, how many of the answers to each question are right, one digit a question.
        compute: what the cell trained on and generated, without evaluations.
        demonstrations: demonstrations trained on, each time counted.
        second_round_tokens: tokens that the policy wrote in view of solutions.
        seconds: wall-clock seconds of the command that finished it, including startup and evaluation.
        date: day on which it finished.
        machine: the machine, in words.
        versions: versions by package.
        base: SHA-256 of what the cell starts from, see `tasks.base_hash`; empty in trials made before it was recorded,
            which all start from one model.
    """

    cell: str
    study: str
    setting: str
    treatment: str
    gate: str
    placement: str
    weight: str
    seed: int
    tried: float | None
    chosen: dict[str, float]
    untuned: bool
    settings: dict[str, Any]
    samples: int
    right: dict[str, str]
    compute: Compute
    demonstrations: int
    second_round_tokens: int
    seconds: float
    date: str
    machine: str
    versions: dict[str, str]
    base: str = ""

    def accuracy(self, sources: Sequence[str]) -> float:
        """Return the mean over data sources of the share of right answers."""
        return fmean(sum(map(int, self.right[s])) / (self.samples * len(self.right[s])) for s in sources)


def measures(right: Mapping[str, str], train: str = "") -> dict[str, list[str]]:
    """Return the data sources of each measure.

    Args:
        right: results by data source.
        train: the set of word problems that was trained on; empty with the arithmetic task.
    """
    if train:
        inside = [source for source in right if train in source.lower()]
        found = {"average": inside, "out of distribution": [source for source in right if source not in inside]}
    else:
        levels = [f"{ARITHMETIC}{level}" for level in LEVELS]
        outside = [source for source in right if source.startswith(f"{ARITHMETIC}ood_")]
        found = {"average": levels, "hardest": levels[-1:], "out of distribution": outside}
    return {name: sources for name, sources in found.items() if sources and right.keys() >= set(sources)}


def path_of(folder: Path, study: str, cell: str) -> Path:
    """Return the file of a cell's record."""
    return folder / study / f"{cell}.json"


def read(path: Path) -> Record:
    """Read a record."""
    fields = json.loads(path.read_text())
    fields["compute"] = Compute(**fields["compute"])
    return Record(**fields)


def read_all(folder: Path, study: str) -> list[Record]:
    """Return the records of a study, by the names of their cells."""
    return [read(path) for path in sorted((folder / study).glob("*.json"))]


def write(folder: Path, record: Record) -> None:
    """Write a record atomically."""
    path = path_of(folder, record.study, record.cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(record), indent=1) + "\n")
