"""Defines the record of a cell (accuracies, learning curve, compute) and reads and writes records as JSON lines."""

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
# Groups of settings that records of `recipe=NAME` name in the group `relift`, and that are in the group `method` today.
_OF_METHODS = {"trigger", "demonstrations", "teacher", "buffer", "schedule", "sft"}


@dataclass(frozen=True)
class Compute:
    """What a cell trained on and generated, without evaluations, including the cell that it started from.

    Attributes:
        rl_steps: steps with rollouts.
        sft_updates: supervised updates.
        rl_tokens: trained tokens of RL updates, including prompts.
        sft_tokens: trained tokens of supervised updates, including prompts.
        generated_tokens: response tokens.
        log_prob_tokens: tokens, including prompts, whose old log-probs had a pass of their own.
        flops: result of `flops`.
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
    """Accuracy per level after a step, and the floating-point operations so far."""

    step: int
    flops: float
    levels: dict[str, float]


@dataclass(frozen=True)
class Record:
    """A finished cell.

    Attributes:
        cell: name of the cell.
        study: name of the study.
        method: name of the study's method.
        base: name of the base model.
        seed: seed of the cell.
        settings: everything that the numbers depend on, see `cell.settings`.
        levels: final accuracy by level.
        questions: number of evaluation questions by level.
        curve: the learning curve.
        compute: what the cell trained on and generated.
        demonstrations_used: number of distinct demonstrations used.
        demonstrations_available: number of demonstrations in the training set.
        seconds: wall-clock seconds, including startup.
        date: day on which it finished.
        machine: the machine, in words.
        versions: versions by package.
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
        """Return one of `measures`."""
        return measure(self.levels, name)


def measure(levels: Mapping[str, float], name: str) -> float:
    """Return an accuracy, or the unweighted mean over the four trained levels or over those out of distribution."""
    match name:
        case "average":
            return fmean(levels[level] for level in LEVELS)
        case "ood average":
            return fmean(levels[level] for level in ood_levels(levels))
        case _:
            return levels[name]


def ood_levels(levels: Iterable[str]) -> list[str]:
    """Return the levels out of distribution, in the task's order."""
    return [level for level in (*SHAPES, *EXTRA_SHAPES) if level.startswith("ood_") and level in levels]


def measures(levels: Iterable[str]) -> list[str]:
    """Return the names of all measures of records with these levels, in the order of a table."""
    return [*LEVELS, AVERAGE, *ood_levels(levels), OOD_AVERAGE]


def flops(parameters: int, trained: float, generated: float, log_probs: float) -> float:
    """Return the floating-point operations (arXiv 2001.08361, table 1).

    Each parameter takes 6 per trained token and 2 per token of a forward pass.

    Args:
        parameters: number of parameters.
        trained: number of trained tokens.
        generated: number of generated tokens.
        log_probs: number of tokens of passes for log-probs.
    """
    return parameters * (6 * trained + 2 * (generated + log_probs))


def to_json(record: Record) -> str:
    """Return a record as one line of JSON."""
    return json.dumps(asdict(record))


def from_json(text: str) -> Record:
    """Parse a record. Its settings get the names that they have today, so that it can be compared.

    Args:
        text: a line that `to_json` has written.
    """
    fields = json.loads(text)
    method = fields["settings"]["method"]
    method["overrides"] = [current_name(override) for override in method["overrides"]]
    fields["curve"] = tuple(Point(**point) for point in fields["curve"])
    fields["compute"] = Compute(**fields["compute"])
    return Record(**fields)


def current_name(override: str) -> str:
    """Return a key=value argument under the name that its setting has today."""
    key, _, value = override.partition("=")
    if key == "recipe":
        return f"method={value}"
    group, _, rest = key.partition(".")
    if group == "relift" and rest.split(".")[0] in _OF_METHODS:
        return f"method.{rest}={value}"
    return override


def read(path: Path) -> list[Record]:
    """Read the records of a file, or of all files of a folder."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    return [from_json(line) for file in files for line in file.read_text().splitlines()]


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(to_json(record) + "\n" for record in records))


def of_method(records: Sequence[Record], method: str) -> list[Record]:
    """Return the records of a method, sorted by base and seed."""
    return sorted((r for r in records if r.method == method), key=lambda r: (r.base, r.seed))
