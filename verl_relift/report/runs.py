"""Reads a run's folder as one array per metric, and lists its problems."""

import json
import math
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..run.console import LOG
from ..run.lock import LOCK
from ..run.redact import redact
from .errors import NoStepYet, ReportError

METRICS = "metrics.jsonl"
_NOT_METRICS = ("step", "time")
# Seconds after which a lock that nobody has touched is that of a dead process; a living one touches it every 15 s.
_SIGN_OF_LIFE = 90.0


@dataclass(frozen=True, slots=True)
class Series:
    """One metric.

    Attributes:
        steps: int64 [k], ascending.
        values: float64 [k]; NaN where a value is not finite.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def finite(self) -> NDArray[np.float64]:
        """The values that are finite."""
        return self.values[np.isfinite(self.values)]


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is on disk.

    Attributes:
        label: the run's name on the page.
        folder: the run's folder.
        series: the metrics by name.
        config: the resolved configuration; empty if there is none.
        first_time: Unix seconds of the first line, or None.
        last_time: Unix seconds of the last line, or None.
        problems: sentences for the reader about missing or unreadable data.
        held: whether a training command has the folder now.
    """

    label: str
    folder: Path
    series: dict[str, Series]
    config: dict[str, Any]
    first_time: float | None
    last_time: float | None
    problems: list[str] = field(default_factory=list)
    held: bool = False

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run, as far as the configuration says it."""
        steps = (self.config.get("trainer") or {}).get("total_training_steps")
        return steps if isinstance(steps, int) else None

    @property
    def in_progress(self) -> bool:
        """Whether more steps may come while the page is read."""
        return self.held

    @property
    def may_be_restarted(self) -> bool:
        """Whether the run has ended with steps left, or with nothing that says how many it was to make."""
        return not self.held and (self.total_steps is None or self.last_step < self.total_steps)

    @property
    def state(self) -> str:
        """Where the run is, in words."""
        step, total = self.last_step, self.total_steps
        where = f"step {step} of {total}" if total else f"step {step}"
        if self.held:
            return f"in progress, {where}"
        if total is None:
            return f"ended, {where}"
        return f"finished, {where}" if step >= total else f"ended early, {where}"

    @property
    def seconds(self) -> float | None:
        """From the command to the last line, if one process made all of them; None if that is unknown."""
        if self.first_time is None or self.last_time is None:
            return None
        before = [self.series[name].finite[:1] for name in ("timing_s/startup", "timing_s/step") if name in self.series]
        return self.last_time - self.first_time + float(sum(values.sum() for values in before))

    @property
    def last_step(self) -> int:
        """The last step of any metric."""
        return max(int(series.steps[-1]) for series in self.series.values())

    def last(self, name: str) -> float | None:
        """Return the last finite value of a metric, or None."""
        values = self.series[name].finite if name in self.series else ()
        return float(values[-1]) if len(values) else None

    def sft_update_steps(self) -> NDArray[np.int64]:
        """Return the steps at which the number of supervised updates grew, int64 [k]."""
        series = self.series.get("relift/sft_updates")
        if series is None:
            return np.empty(0, dtype=np.int64)
        values = np.nan_to_num(series.values, nan=0.0)
        return series.steps[np.diff(np.maximum.accumulate(values), prepend=0.0) > 0]


def read_run(folder: Path, label: str | None = None) -> Run:
    """Read `metrics.jsonl` and `config.yaml`. Lines of one step are merged; a later value replaces an earlier one.

    Args:
        folder: the run's folder.
        label: the run's name on the page; None uses the folder's name.

    Raises:
        NoStepYet: a run in progress has not made its first step.
        ReportError: the folder has no metrics, or none of its lines is readable.
    """
    path = folder / METRICS
    if not path.is_file():
        if _is_held(folder):
            raise NoStepYet(f"{folder}: the run has not made its first step yet; --watch waits for it")
        if (folder / LOG).is_file():
            raise ReportError(f"{folder}: this run has made no step; {folder / LOG} says why")
        raise ReportError(f"{folder}: no {METRICS}; give the run's folder, its trainer.default_local_dir")
    table: dict[str, dict[int, float]] = defaultdict(dict)
    times: list[float] = []
    unreadable = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            record = _record(line)
            if record is None:
                unreadable += bool(line.strip())
                continue
            step = int(record["step"])
            if _is_number(record.get("time")):
                times.append(record["time"])
            for name, value in record.items():
                if name not in _NOT_METRICS and (value is None or _is_number(value)):
                    table[name][step] = math.nan if value is None else float(value)
    if not table:
        raise ReportError(f"{path}: no readable metrics ({unreadable} unreadable lines)")
    series = {name: _series(values) for name, values in table.items()}
    problems = _problems(series, unreadable)
    bounds = (min(times), max(times)) if times else (None, None)
    config = _config(folder, problems)
    return Run(label or folder.resolve().name, folder, series, config, *bounds, problems, _is_held(folder))


def _is_held(folder: Path) -> bool:
    """Whether a training command has the folder: its lock is there, and was touched a short while ago."""
    try:
        touched = (folder / LOCK).stat().st_mtime
    except OSError:
        return False
    return time.time() - touched < _SIGN_OF_LIFE


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and _is_number(record.get("step")) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _series(values: dict[int, float]) -> Series:
    steps = sorted(values)
    numbers = np.array([values[step] for step in steps], dtype=np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return Series(np.array(steps, dtype=np.int64), numbers)


def _problems(series: dict[str, Series], unreadable: int) -> list[str]:
    problems = []
    if unreadable:
        problems.append(f"{unreadable} unreadable lines of {METRICS} are left out.")
    broken = Counter({name: int(np.isnan(s.values).sum()) for name, s in series.items() if np.isnan(s.values).any()})
    for name, count in broken.most_common():
        where = series[name].steps[np.isnan(series[name].values)]
        what = "1 value is" if count == 1 else f"{count} values are"
        problems.append(f"{name}: {what} not finite, first at step {where[0]}; the curve has a gap there.")
    return problems


def _config(folder: Path, problems: list[str]) -> dict[str, Any]:
    import yaml

    path = folder / "config.yaml"
    if not path.is_file():
        problems.append("There is no config.yaml, so the settings of this run are unknown.")
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        config = None
    if not isinstance(config, dict):
        problems.append("config.yaml is not readable, so the settings of this run are unknown.")
        return {}
    return redact(config)  # what earlier versions wrote has secrets in it
