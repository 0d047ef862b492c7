"""Fills in the page's template, `templates/report.html.j2`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..run.display import visible
from . import charts, samples, tables
from .runs import Run


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with charts under it."""

    title: str
    charts: list[charts.Chart]


def render_page(
    runs: Sequence[Run],
    evaluations: Sequence[tables.Evaluation],
    title: str | None = None,
    reload: float | None = None,
) -> str:
    """Render the page. The template escapes all text from files.

    Args:
        runs: the runs; at least one.
        evaluations: evaluations to show.
        title: heading of the page; None joins the runs' labels.
        reload: seconds after which a browser reads the page again; None: never.

    Returns:
        The page as HTML.

    Raises:
        ReportError: validation samples or generations are not readable.
    """
    environment = Environment(
        loader=PackageLoader("verl_relift.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_as_text,
    )
    return environment.get_template("report.html.j2").render(
        reload=reload,
        title=title or " and ".join(run.label for run in runs),
        runs=runs,
        colors=[charts.color_of(position) for position in range(len(runs))],
        totals=tables.totals(runs),
        evaluations=evaluations,
        evaluation_table=tables.evaluation_table(evaluations) if evaluations else None,
        sections=_sections(runs),
        time_table=tables.time_table(runs),
        comparisons=_comparisons(runs, evaluations),
        settings=tables.settings_table(runs),
        configs=[(run.label, _config_text(run)) for run in runs if run.config],
        metrics=[(run.label, tables.metrics_table(run)) for run in runs],
        problems=[(run.label, run.problems) for run in runs if run.problems],
        steps_per_point=_steps_per_point(runs),
        updates_per_mark=max(charts.updates_per_mark(run) for run in runs),
        marks=any(len(run.sft_update_steps()) for run in runs),
    )


def _sections(runs: Sequence[Run]) -> list[Section]:
    found = {chart.title: chart for chart in charts.panel_charts(runs)}

    def pick(*titles: str) -> list[charts.Chart]:
        return [found[title] for title in titles if title in found]

    sections = [
        Section("What it learned", [*charts.validation_charts(runs), *pick("Reward", "Accuracy in training")]),
        Section("Hardest questions", pick("Hardest questions", "Demonstrations waiting", "Demonstrations used")),
        Section(
            "Optimization",
            pick(
                "RL loss",
                "Supervised loss",
                "Entropy in rollouts",
                "Entropy on demonstrations",
                "Gradient norm, RL",
                "Gradient norm, supervised",
            ),
        ),
        Section("Responses", pick("Response length", "Responses cut at the limit")),
        Section("Time and memory", [*charts.time_charts(runs), *pick("Throughput", "Device memory", "Host memory")]),
    ]
    return [section for section in sections if section.charts]


def _comparisons(runs: Sequence[Run], evaluations: Sequence[tables.Evaluation]) -> list[tuple[str, samples.Comparison]]:
    found = [(run.label, samples.from_validation(run.folder)) for run in runs]
    if len(evaluations) > 1:
        first, last = evaluations[0], evaluations[-1]
        labels = (first.label, last.label)
        found.append(("evaluation", samples.from_evaluations(first.folder, last.folder, labels)))
    return [(label, comparison) for label, comparison in found if comparison is not None]


def _as_text(value: Any) -> Any:
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def _config_text(run: Run) -> str:
    """Return the configuration, one dotted setting per line."""
    return yaml.safe_dump(tables.flatten(run.config), sort_keys=True, allow_unicode=True, width=1_000)


def _steps_per_point(runs: Sequence[Run]) -> int:
    most = max(len(series.steps) for run in runs for series in run.series.values())
    return -(-most // charts.MOST_POINTS)


def write_page(path: Path, text: str) -> None:
    """Write the page atomically."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
