"""What is kept of a cell: accuracies, learning curve, compute. One JSON object each; files of them hold one a line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from data_preprocess.arithmetic import EXTRA_SHAPES, SHAPES
from verl_relift.quickstart.summary import LEVELS
from verl_relift.run.folder import write_atomically

AVERAGE, OOD_AVERAGE = "average", "ood average"


@dataclass(frozen=True)
class Compute:
    """What a cell trained on and generated, its evaluations left out, with that of the cell it started from.

    Tokens count prompts, but `generated_tokens` are those of responses. `flops` is :func:`flops` of the others.
    """

    rl_steps: int
    sft_updates: int
    rl_tokens: int
    sft_tokens: int
    generated_tokens: int
    log_prob_tokens: int
    flops: float


@dataclass(frozen=True)
class Point:
    """Accuracy per level after some steps, and the floating-point operations up to there."""

    step: int
    flops: float
    levels: dict[str, float]


@dataclass(frozen=True)
class Record:
    """A finished cell. settings: everything it depends on, see :func:`cell.settings`. seconds: wall clock, start-up
    included.
    """

    cell: str
    study: str
    method: str
    base: str
    seed: int
    settings: dict[str, Any]
    levels: dict[str, float]
    questions: dict[str, int]
    curve: tuple[Point, ...]
    compute: Compute
    demonstrations_used: int
    demonstrations_available: int
    seconds: float
    date: str
    machine: str
    versions: dict[str, str]

    def measure(self, name: str) -> float:
        """One of :func:`measures`."""
        return measure(self.levels, name)


def measure(levels: Mapping[str, float], name: str) -> float:
    """An accuracy, or the unweighted mean of the four trained levels or of those out of distribution."""
    match name:
        case "average":
            return fmean(levels[level] for level in LEVELS)
        case "ood average":
            return fmean(levels[level] for level in ood_levels(levels))
        case _:
            return levels[name]


def ood_levels(levels: Iterable[str]) -> list[str]:
    """Those out of distribution, in the task's order."""
    return [level for level in (*SHAPES, *EXTRA_SHAPES) if level.startswith("ood_") and level in levels]


def measures(levels: Iterable[str]) -> list[str]:
    """Every measure of records that have these levels, as a table shows them."""
    return [*LEVELS, AVERAGE, *ood_levels(levels), OOD_AVERAGE]


def flops(parameters: int, trained: float, generated: float, log_probs: float) -> float:
    """6 per parameter and token trained on, 2 per parameter and token of a forward pass (arXiv 2001.08361, table 1)."""
    return parameters * (6 * trained + 2 * (generated + log_probs))


def to_json(record: Record) -> str:
    """One line."""
    return json.dumps(asdict(record))


def from_json(text: str) -> Record:
    """Undo :func:`to_json`."""
    fields = json.loads(text)
    fields["curve"] = tuple(Point(**point) for point in fields["curve"])
    fields["compute"] = Compute(**fields["compute"])
    return Record(**fields)


def read(path: Path) -> list[Record]:
    """The records of a file, or of all the files of a folder, a cell each."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    return [from_json(line) for file in files for line in file.read_text().splitlines()]


def write(path: Path, records: Iterable[Record]) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(to_json(record) + "\n" for record in records))


def of_method(records: Sequence[Record], method: str) -> list[Record]:
    """In the order of base and seed."""
    return sorted((r for r in records if r.method == method), key=lambda r: (r.base, r.seed))
