"""Compares two evaluations of the same questions, paired by question."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import estimators
from .errors import EvaluationError
from .store import SETTINGS, SUMMARY, read_generations
from .summary import SourceSamples, align, collect, percent

_BOUNDS = (-1.0, 1.0)  # of the difference of two accuracies of one question


def compare(before: Path, after: Path, seed: int = 0) -> dict[str, Any]:
    """Return accuracies of two evaluations and their differences, `after` minus `before`, with 95% intervals.

    Questions are paired by key, so that the interval of a difference does not include how much questions differ in
    difficulty.

    Args:
        before: folder of the first evaluation.
        after: folder of the second evaluation.
        seed: seed of the bootstrap.

    Returns:
        `sources` (one row per common source), `average` (their unweighted mean), `only_before` and `only_after`
        (sources of one evaluation only), and `settings` (names of settings that differ).

    Raises:
        EvaluationError: a folder has no finished evaluation, there is no common source, or a common source has
            different questions.
    """
    old, new = _finished(before), _finished(after)
    common = [name for name in old if name in new]
    if not common:
        raise EvaluationError(f"no source in common: {', '.join(old)} in {before}, {', '.join(new)} in {after}")
    rng = np.random.default_rng(seed)
    sources, means = {}, []
    for name in common:
        first, second = _averages(old[name]), _averages(new[name])
        if first.keys() != second.keys():
            raise EvaluationError(
                f"source {name}: the two evaluations have different questions; evaluate both on the same file"
            )
        differences = [second[key] - first[key] for key in first]
        means.append(estimators.bootstrap_means(differences, rng, bounds=_BOUNDS))
        sources[name] = _row(list(first.values()), list(second.values()), differences, means[-1])
    overall = np.mean(means, axis=0)
    average = {
        side: float(np.mean([row[side] for row in sources.values()])) for side in ("before", "after", "difference")
    } | {"interval": estimators.percentiles(overall)}
    return {
        "sources": sources,
        "average": average,
        "only_before": [name for name in old if name not in new],
        "only_after": [name for name in new if name not in old],
        "settings": _settings_differences(before, after),
    }


def comparison_table(comparison: Mapping[str, Any], before: str, after: str) -> str:
    """Return the comparison as a text table in percent, followed by the sources and settings that differ.

    Args:
        comparison: a result of `compare`.
        before: column heading of the first evaluation.
        after: column heading of the second evaluation.
    """
    rows = [["source", before, after, "difference", "95% of the difference"]]
    rows += [_cells(name, row) for name, row in comparison["sources"].items()]
    if len(comparison["sources"]) > 1:
        rows.append(_cells("average", comparison["average"]))
    lines = [align(rows)]
    for side, label in (("only_before", before), ("only_after", after)):
        if comparison[side]:
            lines.append(f"only in {label}: {', '.join(comparison[side])}")
    if comparison["settings"]:
        lines.append(f"settings that differ: {', '.join(comparison['settings'])}")
    return "\n".join(lines)


def _finished(folder: Path) -> dict[str, SourceSamples]:
    if not (folder / SUMMARY).is_file():
        raise EvaluationError(f"{folder}: no {SUMMARY}; the evaluation is missing or did not finish")
    return collect(read_generations(folder))


def _averages(samples: SourceSamples) -> dict[str, float]:
    return {key: estimators.average(verdicts) for key, verdicts in samples.correct.items()}


def _row(first: list[float], second: list[float], differences: list[float], means: Any) -> dict[str, Any]:
    before, after = float(np.mean(first)), float(np.mean(second))
    return {
        "questions": len(first),
        "before": before,
        "after": after,
        "difference": after - before,
        "interval": estimators.interval(differences, means, bounds=_BOUNDS),
    }


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    low, high = row["interval"]
    sign = "{:+.1f}".format
    return [
        name,
        percent(row["before"]),
        percent(row["after"]),
        sign(100 * row["difference"]),
        f"{sign(100 * low)}..{sign(100 * high)}",
    ]


def _settings_differences(before: Path, after: Path) -> list[str]:
    old, new = (json.loads((folder / SETTINGS).read_text(encoding="utf-8")) for folder in (before, after))
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
