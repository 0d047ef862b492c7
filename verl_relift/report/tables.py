"""Builds the page's tables: totals, settings, time by stage, evaluations, and the range of every metric."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..run import budget
from .charts import validation_average
from .errors import ReportError
from .runs import Run
from .timing import stage_seconds

_REJECTED = "relift/demonstrations_rejected/"

# What the page shows of a single run. The rest is under "All settings".
_MAIN_GROUPS = ("method.", "relift.")
_SOURCE = "method.demonstrations.source"
_MAIN_SETTINGS = (
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "algorithm.adv_estimator",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: one heading per column, and rows with one cell per column."""

    header: list[str]
    rows: list[list[str]]


def totals(runs: Sequence[Run]) -> Table:
    """Return the totals of each run: one row per fact, one column per run."""
    facts = {
        "method": lambda run: str(_at(run.config, "method.name") or ""),
        "state": lambda run: run.state,
        "wall-clock time": _duration,
        "reward, first to last step": lambda run: _first_to_last(run, "critic/score/mean"),
        "validation accuracy, first to last": _validation_change,
        "supervised updates": lambda run: _number(run.last("relift/sft_updates")),
        "demonstrations used": lambda run: _number(run.last("relift/demonstrations_used")),
        "demonstrations trained on, repeats counted": _trained_on,
        "share of the demonstrations used": lambda run: _percent(run.last("relift/demonstration_fraction")),
        "demonstrations rejected": _rejected,
        "peak memory of a device": lambda run: _largest(run, "actor/perf/max_memory_allocated_gb", " GB"),
        "base model": lambda run: str(_at(run.config, "actor_rollout_ref.model.path") or ""),
        "training data": lambda run: _joined(_at(run.config, "data.train_files")),
    }
    rows = [[name, *(of(run) for run in runs)] for name, of in facts.items()]
    return Table(["", *(run.label for run in runs)], [row for row in rows if any(row[1:])])


def _trained_on(run: Run) -> str:
    """Count demonstrations as often as they were trained on: in updates of their own, in groups, and in a stream."""
    counts = [sum(run.series[name].finite) for name in budget.OF_EACH_STEP if name in run.series]
    own = run.last(budget.SINCE_THE_START)
    counts += [] if own is None else [own]
    return _number(sum(counts)) if counts else ""


def time_table(runs: Sequence[Run]) -> Table | None:
    """Return seconds by stage and their share of the sum; None if no run has step times."""
    seconds = [stage_seconds(run) for run in runs]
    stages = list(dict.fromkeys(stage for run in seconds for stage in run))
    if not stages:
        return None
    rows = []
    for stage in stages:
        cells = [f"{s[stage]:,.0f} s ({s[stage] / sum(s.values()):.0%})" if stage in s else "" for s in seconds]
        rows.append([stage, *cells])
    return Table(["stage", *(run.label for run in runs)], rows)


def metrics_table(run: Run) -> Table:
    """Return first, last, smallest and largest value of every metric of a run."""
    rows = []
    for name, series in sorted(run.series.items()):
        values = series.finite
        if len(values):
            numbers = [values[0], values[-1], values.min(), values.max()]
            rows.append([name, *(f"{number:.4g}" for number in numbers), str(len(series.values) - len(values))])
        else:
            rows.append([name, "", "", "", "", str(len(series.values))])
    return Table(["metric", "first", "last", "smallest", "largest", "not finite"], rows)


def settings_table(runs: Sequence[Run]) -> Table | None:
    """Return the main settings of one run, or the settings that differ between several runs; None if there are none."""
    flat = [_in_use(flatten(run.config)) for run in runs]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    if len(runs) > 1:
        rows = _differences(flat, keys)
    else:
        keys = [key for key in keys if key.startswith(_MAIN_GROUPS)] + [key for key in keys if key in _MAIN_SETTINGS]
        rows = [[key, flat[0][key]] for key in keys]
    return Table(["setting", *(run.label for run in runs)], rows) if rows else None


def _differences(flat: Sequence[Mapping[str, str]], keys: Sequence[str]) -> list[list[str]]:
    """Return a row for each set of values that differs: a value that was typed once is often that of several keys.

    What lies in the runs' folders differs with them, which their names say.
    """
    folders = [settings.get("trainer.default_local_dir") for settings in flat]
    keys_by_values: dict[tuple[str, ...], list[str]] = {}
    for key in keys:
        values = [settings.get(key, "") for settings in flat]
        if len({value.replace(folder or "\0", "") for value, folder in zip(values, folders, strict=True)}) > 1:
            keys_by_values.setdefault(tuple(values), []).append(key)
    return [[", ".join(names), *values] for values, names in keys_by_values.items()]


def _in_use(settings: dict[str, str]) -> dict[str, str]:
    """Leave out the settings of sources that demonstrations do not come from."""
    source = settings.get(_SOURCE)
    if source is None:
        return settings
    unused = tuple(f"method.{name}." for name in ("teacher", "privileged") if name not in source)
    return {key: value for key, value in settings.items() if not key.startswith(unused)}


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to dotted names and texts.

    Args:
        config: nested mapping with string keys.
        prefix: put before every name.
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation to show: its label, its folder, and the contents of its summary.json."""

    label: str
    folder: Path
    summary: dict[str, Any]


def read_evaluation(argument: str) -> Evaluation:
    """Read the evaluation that `--evaluation` names.

    Args:
        argument: `LABEL=DIR`, or `DIR`, whose name then becomes the label.

    Raises:
        ReportError: the folder has no summary.json written by `verl_relift.evaluate`.
    """
    label, found, path = argument.partition("=")
    folder = Path(path if found else argument)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        summary["sources"], summary["average"]["accuracy"], summary["settings"]["max_tokens"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{folder}: no summary.json written by verl_relift.evaluate ({error})") from error
    return Evaluation(label if found else folder.resolve().name, folder, summary)


def evaluation_table(evaluations: Sequence[Evaluation]) -> Table:
    """Return accuracy with its interval by source, one column per evaluation."""
    sources = list(dict.fromkeys(source for e in evaluations for source in e.summary["sources"]))
    rows = [[source, *(_accuracy(e.summary["sources"].get(source)) for e in evaluations)] for source in sources]
    rows.append(["average", *(_accuracy(e.summary["average"]) for e in evaluations)])
    return Table(["source", *(e.label for e in evaluations)], rows)


def _accuracy(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not run"
    low, high = row["accuracy_interval"]
    return f"{100 * row['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _duration(run: Run) -> str:
    if run.seconds is None:
        return ""
    minutes, seconds = divmod(round(run.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _first_to_last(run: Run, name: str) -> str:
    values = run.series[name].finite if name in run.series else ()
    return f"{values[0]:.3f} to {values[-1]:.3f}" if len(values) else ""


def _validation_change(run: Run) -> str:
    average = validation_average(run)
    values = average.finite if average is not None else ()
    return f"{values[0]:.3f} to {values[-1]:.3f}" if len(values) else ""


def _rejected(run: Run) -> str:
    names = [name for name in run.series if name.startswith(_REJECTED)]
    counts = {name.removeprefix(_REJECTED): run.last(name) for name in names}  # since the start of the run
    return ", ".join(f"{count:.0f} {reason}" for reason, count in counts.items() if count)


def _largest(run: Run, name: str, unit: str) -> str:
    values = run.series[name].finite if name in run.series else ()
    return f"{values.max():.1f}{unit}" if len(values) else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
