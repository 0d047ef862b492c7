"""Curves of one or more runs as SVG images, and `curves.png`, by matplotlib."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
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

MOST_POINTS = 400
_MOST_MARKS = 400
# Okabe and Ito's palette, which readers with any colour vision can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#444444")
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
_STAGES = {
    "timing_s/gen": "generation",
    "timing_s/old_log_prob": "old log-probs",
    "timing_s/update_actor": "RL update",
    "timing_s/update_actor_sft": "supervised update",
    "timing_s/update_weights": "weights to vLLM",
    "timing_s/testing": "validation",
    "timing_s/save_checkpoint": "checkpoint",
}
_STEP_TIME = "timing_s/step"
_VALIDATION = re.compile(r"val-core/(?P<source>.+)/(?:acc|reward)/mean@\d+$")


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart of one metric: its name in the metrics, a title, what the vertical axis counts, and a sentence."""

    metric: str
    title: str
    unit: str = ""
    note: str = ""
    log: bool = False
    zero: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart: an SVG as a data address, with a title, a text alternative and a note for the caption."""

    title: str
    alternative: str
    note: str
    address: str


PANELS = (
    Panel("critic/score/mean", "Reward", "mean of all rollouts", "1 for a right answer, 0 for any other.", zero=True),
    Panel("relift/hardest_fraction", "Hardest questions", "fraction of the batch", "No rollout was right.", zero=True),
    Panel("relift/buffer_size", "Demonstrations waiting", "in the buffer", zero=True),
    Panel("relift/demonstrations_used", "Demonstrations used", "cumulative", zero=True),
    Panel("actor/pg_loss", "RL loss"),
    Panel("relift/sft_loss", "Supervised loss", "nats a token", zero=True),
    Panel("actor/entropy", "Entropy in rollouts", "nats a token", zero=True),
    Panel("relift/sft_entropy", "Entropy on demonstrations", "nats a token", zero=True),
    Panel("actor/grad_norm", "Gradient norm, RL", log=True),
    Panel("relift/sft_grad_norm", "Gradient norm, supervised", log=True),
    Panel("response_length/mean", "Response length", "tokens", zero=True),
    Panel("response_length/clip_ratio", "Responses cut at the limit", "fraction", zero=True),
    Panel("actor/perf/max_memory_allocated_gb", "Device memory", "GB, peak of a rank", zero=True),
    Panel("actor/perf/cpu_memory_used_gb", "Host memory", "GB", zero=True),
    Panel("perf/throughput", "Throughput", "tokens a second and device", zero=True),
)
# The panels of `curves.png` beside the validation accuracy.
_FIGURE = ("Reward", "Hardest questions", "Demonstrations used", "Entropy in rollouts", "Response length")


def colour_of(position: int) -> str:
    """The colour of the run or source at a position."""
    return COLOURS[position % len(COLOURS)]


def validation_sources(runs: Sequence[Run]) -> dict[str, str]:
    """Metric names of validation accuracy by data source, of all runs."""
    found: dict[str, str] = {}
    for run in runs:
        for name in run.series:
            match = _VALIDATION.fullmatch(name)
            if match:
                found.setdefault(match["source"], name)
    return found


def validation_average(run: Run) -> Series | None:
    """The unweighted mean over sources, at the steps at which every source was validated; None without validation."""
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
    """A chart of every panel that any run has values for."""
    return [
        _render(
            panel.title,
            _describe(panel.title, runs, panel.metric),
            panel.note,
            lambda axes, panel=panel: _draw_panel(axes, panel, runs),
        )
        for panel in PANELS
        if any(panel.metric in run.series and len(run.series[panel.metric].finite) for run in runs)
    ]


def validation_charts(runs: Sequence[Run]) -> list[Chart]:
    """Validation accuracy: of one run all sources in one chart; of several the average and each source apart."""
    sources = validation_sources(runs)
    if not sources:
        return []
    title = "Validation accuracy"
    if len(runs) == 1:
        return [_render(title, title, "", lambda axes: draw_sources(axes, runs[0]))]
    charts = [
        _render(f"{title}, average", title, "Unweighted mean of the sources.", lambda axes: _draw_average(axes, runs))
    ]
    for source, name in sources.items():
        panel = Panel(name, source, "accuracy", zero=True)
        charts.append(
            _render(source, _describe(source, runs, name), "", lambda axes, p=panel: _draw_panel(axes, p, runs))
        )
    return charts


def time_charts(runs: Sequence[Run]) -> list[Chart]:
    """Seconds a step by stage, stacked; one chart a run."""
    charts = []
    for run in runs:
        if _STEP_TIME in run.series:
            title = "Where the time goes" + (f": {run.label}" if len(runs) > 1 else "")
            charts.append(_render(title, title, "", lambda axes, run=run: _draw_time(axes, run)))
    return charts


def stage_seconds(run: Run) -> dict[str, float]:
    """Seconds of the whole run by stage, with what no stage accounts for under `other`; empty without step times."""
    if _STEP_TIME not in run.series:
        return {}
    totals = {title: float(run.series[name].finite.sum()) for name, title in _STAGES.items() if name in run.series}
    other = float(run.series[_STEP_TIME].finite.sum()) - sum(totals.values())
    return totals | ({"other": other} if other > 0 else {})


def write_curves(path: Path, runs: Sequence[Run]) -> None:
    """`curves.png`, 300 dots an inch: validation accuracy and the panels of `_FIGURE`, as far as there are values."""
    draws: list[Callable[[Axes], None]] = []
    titles = []
    if validation_sources(runs):
        titles.append("Validation accuracy")
        draws.append(lambda axes: draw_sources(axes, runs[0]) if len(runs) == 1 else _draw_average(axes, runs))
    for panel in (panel for panel in PANELS if panel.title in _FIGURE):
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
    """Every source's validation accuracy of one run, and the average of them."""
    for position, (source, name) in enumerate(validation_sources([run]).items()):
        _curve(axes, run.series[name], colour_of(position), _plain(source))
    average = validation_average(run)
    if average is not None and len(validation_sources([run])) > 1:
        _curve(axes, average, "black", "average", style="--")
    _finish(axes, [run], "accuracy", zero=True, legend=True)


def _draw_average(axes: Axes, runs: Sequence[Run]) -> None:
    for position, run in enumerate(runs):
        average = validation_average(run)
        if average is not None:
            _curve(axes, average, colour_of(position), _plain(run.label))
    _finish(axes, runs, "accuracy", zero=True, legend=True)


def _draw_panel(axes: Axes, panel: Panel, runs: Sequence[Run]) -> None:
    for position, run in enumerate(runs):
        if panel.metric in run.series:
            _curve(axes, run.series[panel.metric], colour_of(position), _plain(run.label))
    if panel.log and all((run.series[panel.metric].finite > 0).all() for run in runs if panel.metric in run.series):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    _finish(axes, runs, panel.unit, zero=panel.zero, legend=len(runs) > 1)


def _curve(axes: Axes, series: Series, colour: str, label: str, style: str = "-") -> None:
    curve = thin(series, MOST_POINTS)
    few = len(curve.x) <= 40
    axes.plot(curve.x, curve.y, style, color=colour, label=label, marker="o" if few else None, markersize=3)
    if curve.steps_a_point > 1:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)


def _finish(axes: Axes, runs: Sequence[Run], unit: str, zero: bool, legend: bool) -> None:
    if zero:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if axes.dataLim.ymin < 0 else 0.0)
    _mark_updates(axes, runs)
    _step_axis(axes, runs)
    axes.set_ylabel(unit)
    if legend:
        axes.legend(loc="best", handlelength=1.4, labelspacing=0.3)


def _step_axis(axes: Axes, runs: Sequence[Run]) -> None:
    """The same horizontal axis on every chart, so that they can be compared by eye."""
    last = max(1, *(run.last_step for run in runs))
    axes.set_xlim(-0.01 * last, 1.015 * last)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _mark_updates(axes: Axes, runs: Sequence[Run]) -> None:
    """Supervised updates as ticks that stand on the horizontal axis, in the run's colour."""
    for position, run in enumerate(runs):
        steps = run.sft_update_steps()
        steps = steps[:: updates_a_mark(run)]
        colour = "#666666" if len(runs) == 1 else colour_of(position)
        low = 0.035 * position
        axes.vlines(steps, low, low + 0.03, color=colour, linewidth=0.9, transform=axes.get_xaxis_transform())


def updates_a_mark(run: Run) -> int:
    """How many supervised updates one mark stands for: above 1 there are too many to tell apart."""
    return max(1, -(-len(run.sft_update_steps()) // _MOST_MARKS))


def _draw_time(axes: Axes, run: Run) -> None:
    total = run.series[_STEP_TIME]
    names = [name for name in _STAGES if name in run.series]
    layers, labels = [], []
    for name in names:
        values = np.zeros(len(total.steps))
        steps = run.series[name].steps
        places = np.searchsorted(total.steps, steps)
        inside = (places < len(total.steps)) & np.isin(steps, total.steps)
        values[places[inside]] = np.nan_to_num(run.series[name].values[inside])
        layers.append(values)
        labels.append(_STAGES[name])
    layers.append(np.maximum(0.0, np.nan_to_num(total.values) - np.sum(layers, axis=0)))
    labels.append("other")
    thinned = [thin(Series(total.steps, layer), MOST_POINTS) for layer in layers]
    colours = [*(colour_of(i) for i in range(len(names))), "#c8c8c8"]
    axes.stackplot(thinned[0].x, [curve.y for curve in thinned], labels=labels, colors=colours, linewidth=0)
    _step_axis(axes, [run])
    axes.set_ylabel("seconds a step")
    axes.grid(False)
    axes.figure.legend(loc="outside lower center", ncols=3, handlelength=1.0, fontsize=8, columnspacing=1.0)


def _render(title: str, alternative: str, note: str, draw: Callable[[Axes], None]) -> Chart:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.8), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    address = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Chart(title, alternative, note, address)


def _describe(title: str, runs: Sequence[Run], metric: str) -> str:
    """A text alternative: first and last value of each run."""
    parts = []
    for run in runs:
        values = run.series[metric].finite if metric in run.series else ()
        if len(values):
            parts.append(f"{run.label}: from {values[0]:.4g} to {values[-1]:.4g}")
    return f"{title} over steps. " + "; ".join(parts)


def _plain(text: str) -> str:
    """A label that matplotlib neither reads as mathematics nor hides (a leading underscore would)."""
    return text.replace("$", r"\$").lstrip("_") or "run"
