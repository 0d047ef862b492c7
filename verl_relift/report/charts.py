"""Draws curves of one or more runs with matplotlib: SVG images for the page, and a PNG of the main ones."""

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from .runs import Run, Series
from .thin import thin
from .timing import OTHER, STAGES, stage_series

MOST_POINTS = 400
_MOST_MARKS = 400
# Okabe and Ito's palette, which readers with any color vision can tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#444444")
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "verl_relift",
    "font.family": "sans-serif",
}
_VALIDATION = re.compile(r"val-core/(?P<source>.+)/(?:acc|reward)/mean@\d+$")
_VALIDATION_REWARD = re.compile(r"val-aux/(?P<source>.+)/reward/mean@\d+$")


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart of one metric.

    Attributes:
        metric: name in `metrics.jsonl`.
        title: heading of the chart.
        unit: label of the vertical axis.
        note: sentence for the caption.
        log: whether the vertical axis is logarithmic.
        zero: whether the vertical axis starts at 0.
        healthy: what a good run's curve looks like, and what a bad one's means.
    """

    metric: str
    title: str
    unit: str = ""
    note: str = ""
    log: bool = False
    zero: bool = False
    healthy: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart: title, text alternative, caption, the SVG as a data URL, and how a good one looks."""

    title: str
    alternative: str
    note: str
    address: str
    healthy: str = ""


PANELS = (
    Panel(
        "critic/score/mean",
        "Reward",
        "mean of all rollouts",
        zero=True,
        healthy="rises, then levels off. Flat at 0: no answer earns anything; look at the answers.",
    ),
    Panel(
        "training/accuracy",
        "Accuracy in training",
        "fraction of rollouts",
        zero=True,
        healthy="rises with the reward. Reward without accuracy: the reward is earned by something else.",
    ),
    Panel(
        "relift/hardest_fraction",
        "Hardest questions",
        "fraction of batch",
        "No rollout was correct.",
        zero=True,
        healthy="falls. At 1 throughout: the answers are cut off, or have the wrong format.",
    ),
    Panel("relift/buffer_size", "Demonstrations waiting", "in the buffer", zero=True),
    Panel("relift/demonstrations_used", "Demonstrations used", "cumulative", zero=True),
    Panel("actor/pg_loss", "RL loss", healthy="near 0 without demonstrations in it; says little about learning."),
    Panel(
        "relift/sft_loss",
        "Supervised loss",
        "nats per token",
        zero=True,
        healthy="falls, and does not jump. Rising: the learning rate is too high.",
    ),
    Panel(
        "actor/entropy",
        "Entropy in rollouts",
        "nats per token",
        zero=True,
        healthy="falls slowly. Near 0 early: all answers are the same. Rising fast: the model comes apart.",
    ),
    Panel("relift/sft_entropy", "Entropy on demonstrations", "nats per token", zero=True),
    Panel(
        "actor/grad_norm",
        "Gradient norm, RL",
        log=True,
        healthy="stays within a factor of ten. 0: all answers of every question earn the same reward.",
    ),
    Panel("relift/sft_grad_norm", "Gradient norm, supervised", log=True),
    Panel("method/gate_opened", "Questions at or below the gate", "in a step", zero=True),
    Panel("method/demonstrations_joined", "Demonstrations in groups", "in a step", zero=True),
    Panel("method/mu", "Coefficient of the supervised loss", zero=True),
    Panel("method/hint_reliance", "Reliance on hints", "accuracy with, minus without"),
    Panel(
        "actor/demonstration_loss_share",
        "Demonstrations in the loss",
        "share, by absolute values",
        zero=True,
    ),
    Panel(
        "actor/demonstration_gradient_share",
        "Demonstrations in the gradient",
        "norm over the norm of the whole",
        zero=True,
        healthy="falls as the policy learns. Above 1: rollouts pull the other way.",
    ),
    Panel(
        "response_length/mean",
        "Response length",
        "tokens",
        zero=True,
        healthy="changes slowly. At the limit: answers are cut off. Near 0: the model ends at once.",
    ),
    Panel(
        "response_length/clip_ratio",
        "Responses cut at the limit",
        "fraction",
        zero=True,
        healthy="stays low. High: raise data.max_response_length, or answers can't be right.",
    ),
    Panel("actor/perf/max_memory_allocated_gb", "Device memory", "GB, peak of a rank", zero=True, healthy="flat."),
    Panel("actor/perf/cpu_memory_used_gb", "Host memory", "GB", zero=True, healthy="flat. Rising steadily: a leak."),
    Panel("perf/throughput", "Throughput", "tokens per second and device", zero=True),
)
_VALIDATION_HEALTHY = (
    "rises. Falling while the reward rises: the run learns its training questions, or a flaw of grading."
)
_VISIBLE_SHARE = 0.01  # of the time of all steps
# A stage has the same color in every run. There are more stages than colors, so the usually short ones get others.
_SHORT_STAGES = {"balancing ranks": "#999999", "reference log-probs": "#f0e442", "advantages": "#666666"}
_STAGE_COLORS = {
    **dict(zip((title for title in STAGES.values() if title not in _SHORT_STAGES), COLORS, strict=False)),
    **_SHORT_STAGES,
}
# The panels of the PNG, after the validation accuracy.
_FIGURE = (
    "Reward",
    "Accuracy in training",
    "Hardest questions",
    "Demonstrations used",
    "Supervised loss",
    "Entropy in rollouts",
    "Response length",
    "Responses cut at the limit",
)


def color_of(position: int) -> str:
    """Return the color of the run or source at a position."""
    return COLORS[position % len(COLORS)]


def validation_sources(runs: Sequence[Run]) -> dict[str, str]:
    """Return the metric names of validation accuracy by data source, over all runs."""
    found: dict[str, str] = {}
    for run in runs:
        for name in run.series:
            match = _VALIDATION.fullmatch(name)
            if match:
                found.setdefault(match["source"], name)
    return found


def validation_average(run: Run) -> Series | None:
    """Return the unweighted mean over sources at the steps that validated every source; None without validation."""
    series = [run.series[name] for name in validation_sources([run]).values()]
    if not series:
        return None
    steps = series[0].steps
    for other in series[1:]:
        steps = np.intersect1d(steps, other.steps)
    if not len(steps):
        return None
    return Series(steps, np.mean([s.values[np.searchsorted(s.steps, steps)] for s in series], axis=0))


def panel_charts(runs: Sequence[Run]) -> list[Chart]:
    """Draw every panel that any run has values for."""
    return [
        _render(
            panel.title,
            _describe(panel.title, runs, panel.metric),
            panel.note,
            lambda axes, panel=panel: _draw_panel(axes, panel, runs),
            panel.healthy,
        )
        for panel in PANELS
        if any(panel.metric in run.series and len(run.series[panel.metric].finite) for run in runs)
    ]


def validation_charts(runs: Sequence[Run]) -> list[Chart]:
    """Draw validation accuracy: for one run all sources in one chart, for several runs one chart per source."""
    sources = validation_sources(runs)
    if not sources:
        return []
    title = "Validation accuracy"
    rewards = _validation_rewards(runs, sources)
    if len(runs) == 1:
        chart = _render(title, title, "", lambda axes: draw_sources(axes, runs[0]), _VALIDATION_HEALTHY)
        return [chart, *rewards]
    charts = [
        _render(f"{title}, average", title, "Unweighted mean of the sources.", lambda axes: _draw_average(axes, runs))
    ]
    for source, name in sources.items():
        panel = Panel(name, source, "accuracy", zero=True)
        charts.append(
            _render(source, _describe(source, runs, name), "", lambda axes, p=panel: _draw_panel(axes, p, runs))
        )
    return [*charts, *rewards]


def _validation_rewards(runs: Sequence[Run], sources: Mapping[str, str]) -> list[Chart]:
    """Draw the validation rewards of the sources where they are other numbers than the accuracy."""
    names = list(dict.fromkeys(name for run in runs for name in run.series))
    charts = []
    for source, accuracy in sources.items():
        name = next((n for n in names if (m := _VALIDATION_REWARD.fullmatch(n)) and m["source"] == source), None)
        having = [run for run in runs if name in run.series and accuracy in run.series]
        if all(np.array_equal(run.series[name].values, run.series[accuracy].values, equal_nan=True) for run in having):
            continue
        title = f"Validation reward, {source}"
        panel = Panel(name, title, "mean of all answers", zero=True)
        charts.append(
            _render(title, _describe(title, runs, name), "", lambda axes, p=panel: _draw_panel(axes, p, runs))
        )
    return charts


def time_charts(runs: Sequence[Run]) -> list[Chart]:
    """Draw the seconds of each step by stage, stacked; one chart per run that has step times."""
    charts = []
    for run in runs:
        if stage_series(run):
            title = "Where the time goes" + (f": {run.label}" if len(runs) > 1 else "")
            note = f'"{OTHER}" includes stages below {_VISIBLE_SHARE:.0%} of the time.'
            charts.append(_render(title, title, note, lambda axes, run=run: _draw_time(axes, run)))
    return charts


def figure_panels() -> list[Panel]:
    """Return the panels of the PNG, beside the validation accuracy."""
    return [panel for panel in PANELS if panel.title in _FIGURE]


def write_curves(path: Path, runs: Sequence[Run]) -> None:
    """Draw validation accuracy and those of `figure_panels` that have values, at 300 dpi.

    Args:
        path: the PNG file to write.
        runs: the runs.
    """
    draws: list[Callable[[Axes], None]] = []
    titles = []
    if validation_sources(runs):
        titles.append("Validation accuracy")
        draws.append(lambda axes: draw_sources(axes, runs[0]) if len(runs) == 1 else _draw_average(axes, runs))
    for panel in figure_panels():
        if any(panel.metric in run.series and len(run.series[panel.metric].finite) for run in runs):
            titles.append(panel.title)
            draws.append(lambda axes, panel=panel: _draw_panel(axes, panel, runs))
    columns = min(3, len(draws))
    rows = -(-len(draws) // max(1, columns))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.6 * max(1, columns), 2.7 * max(1, rows)), layout="constrained")
        for position, (title, draw) in enumerate(zip(titles, draws, strict=True), 1):
            axes = figure.add_subplot(rows, columns, position)
            draw(axes)
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        figure.savefig(path, dpi=300)


def draw_sources(axes: Axes, run: Run) -> None:
    """Draw the validation accuracy of every source of one run, and their average."""
    for position, (source, name) in enumerate(validation_sources([run]).items()):
        _curve(axes, run.series[name], color_of(position), _plain(source))
    average = validation_average(run)
    if average is not None and len(validation_sources([run])) > 1:
        _curve(axes, average, "black", "average", style="--")
    _finish(axes, [run], "accuracy", zero=True, legend=True)


def _draw_average(axes: Axes, runs: Sequence[Run]) -> None:
    for position, run in enumerate(runs):
        average = validation_average(run)
        if average is not None:
            _curve(axes, average, color_of(position), _plain(run.label))
    _finish(axes, runs, "accuracy", zero=True, legend=True)


def _draw_panel(axes: Axes, panel: Panel, runs: Sequence[Run]) -> None:
    for position, run in enumerate(runs):
        if panel.metric in run.series:
            _curve(axes, run.series[panel.metric], color_of(position), _plain(run.label))
    if panel.log and all((run.series[panel.metric].finite > 0).all() for run in runs if panel.metric in run.series):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    _finish(axes, runs, panel.unit, zero=panel.zero, legend=len(runs) > 1)


def _curve(axes: Axes, series: Series, color: str, label: str, style: str = "-") -> None:
    curve = thin(series, MOST_POINTS)
    few = len(curve.x) <= 40
    axes.plot(curve.x, curve.y, style, color=color, label=label, marker="o" if few else None, markersize=3)
    if curve.steps_per_point > 1:
        axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)


def _finish(axes: Axes, runs: Sequence[Run], unit: str, zero: bool, legend: bool) -> None:
    if zero:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if axes.dataLim.ymin < 0 else 0.0)
        if axes.dataLim.ymax > 0:
            axes.set_ylim(top=1.06 * axes.dataLim.ymax)  # the margin is of the distance to 0, not of the curve's range
    _mark_updates(axes, runs)
    _step_axis(axes, runs)
    axes.set_ylabel(unit)
    if legend:
        axes.legend(loc="best", handlelength=1.4, labelspacing=0.3)


def _step_axis(axes: Axes, runs: Sequence[Run]) -> None:
    """Set the same horizontal axis on every chart, so that readers can compare them."""
    last = max(1, *(run.last_step for run in runs))
    axes.set_xlim(-0.01 * last, 1.015 * last)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _mark_updates(axes: Axes, runs: Sequence[Run]) -> None:
    """Mark supervised updates by ticks on the horizontal axis, in the run's color."""
    for position, run in enumerate(runs):
        steps = run.sft_update_steps()
        steps = steps[:: updates_per_mark(run)]
        color = "#666666" if len(runs) == 1 else color_of(position)
        low = 0.035 * position
        axes.vlines(steps, low, low + 0.03, color=color, linewidth=0.9, transform=axes.get_xaxis_transform())


def updates_per_mark(run: Run) -> int:
    """Return how many supervised updates one tick stands for; more than 1 if single ticks would merge."""
    return max(1, -(-len(run.sft_update_steps()) // _MOST_MARKS))


def _draw_time(axes: Axes, run: Run) -> None:
    layers = _visible_stages(stage_series(run))
    thinned = [thin(layer, MOST_POINTS) for layer in layers.values()]
    colors = ["#c8c8c8" if title == OTHER else _STAGE_COLORS[title] for title in layers]
    axes.stackplot(thinned[0].x, [curve.y for curve in thinned], labels=list(layers), colors=colors, linewidth=0)
    _step_axis(axes, [run])
    axes.set_ylabel("seconds per step")
    axes.grid(False)
    axes.figure.legend(loc="outside lower center", ncols=3, handlelength=1.0, fontsize=8, columnspacing=1.0)


def _visible_stages(layers: dict[str, Series]) -> dict[str, Series]:
    """Return the layers without those too thin to see, which are added to `OTHER`."""
    total = sum(layer.values.sum() for layer in layers.values())
    small = [title for title in layers if title != OTHER and layers[title].values.sum() < _VISIBLE_SHARE * total]
    other = layers[OTHER].values + sum(layers[title].values for title in small)
    return {
        title: Series(layer.steps, other) if title == OTHER else layer
        for title, layer in layers.items()
        if title not in small
    }


def _render(title: str, alternative: str, note: str, draw: Callable[[Axes], None], healthy: str = "") -> Chart:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.8), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    address = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Chart(title, alternative, note, address, healthy)


def _describe(title: str, runs: Sequence[Run], metric: str) -> str:
    """Return a text alternative: first and last value of each run."""
    parts = []
    for run in runs:
        values = run.series[metric].finite if metric in run.series else ()
        if len(values):
            parts.append(f"{run.label}: from {values[0]:.4g} to {values[-1]:.4g}")
    return f"{title} over steps. " + "; ".join(parts)


def _plain(text: str) -> str:
    """Return a label that matplotlib neither reads as mathematics nor hides, as it does after an underscore."""
    return text.replace("$", r"\$").lstrip("_") or "run"
