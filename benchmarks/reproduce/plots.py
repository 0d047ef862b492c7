"""Draws the images of a study: learning curves over compute, and accuracy over used demonstrations."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.reproduce.records import AVERAGE, Record, measure, of_method
from benchmarks.reproduce.study import Kind, Study
from verl_relift.report.charts import COLORS

DPI = 100
_MARKERS = ("o", "s", "^")


def curves(study: Study, cells: Sequence[Record], path: Path) -> None:
    """Draw average and hardest level over floating-point operations: means over cells with their range.

    Args:
        study: the study.
        cells: its records.
        path: image to write.
    """
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 2), (AVERAGE, "hardest"), ("average of the four levels", "hardest"), strict=True
    ):
        for position, method in enumerate(study.methods):
            own = of_method(cells, method.name)
            if not own:
                continue
            if method.kind is Kind.EVALUATE:
                level = 100 * fmean(record.measure(name) for record in own)
                axes.axhline(level, color="#888888", linestyle=":", label=method.title)
                continue
            _curve(axes, own, name, position, method.title)
        axes.set(title=title, xscale="log", xlabel="floating-point operations", ylabel="accuracy, %")
        _tidy(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=DPI)


def _curve(axes: Axes, cells: Sequence[Record], name: str, position: int, label: str) -> None:
    # Points are matched by position, because the steps between them depend on how many demonstrations ReLIFT has used.
    points = list(zip(*(record.curve for record in cells), strict=False))
    operations = [fmean(point.flops for point in place) for place in points]
    accuracies = [[100 * measure(point.levels, name) for point in place] for place in points]
    color, marker = _look(position)
    lowest, highest = list(map(min, accuracies)), list(map(max, accuracies))
    means, width = [fmean(values) for values in accuracies], 3.0 if cells[0].method == "relift" else 1.5
    axes.plot(operations, means, color=color, marker=marker, ms=5, lw=width, label=label)
    axes.fill_between(operations, lowest, highest, color=color, alpha=0.12, lw=0)


def demonstrations(study: Study, cells: Sequence[Record], path: Path) -> None:
    """Draw the average accuracy of every cell over its used demonstrations, with a large mark for each method's mean.

    Args:
        study: the study.
        cells: its records.
        path: image to write.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for position, method in enumerate(study.methods):
        own = of_method(cells, method.name)
        if not own:
            continue
        used = [record.demonstrations_used for record in own]
        accuracies = [100 * record.measure(AVERAGE) for record in own]
        color, marker = _look(position)
        look = {"color": color, "marker": marker}
        axes.scatter(used, accuracies, s=18, alpha=0.45, linewidths=0, **look)
        axes.scatter([fmean(used)], [fmean(accuracies)], s=80, edgecolors="white", label=method.title, **look)
    axes.set(xlabel="distinct demonstrations used", ylabel="average accuracy, %")
    _tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path, dpi=DPI)


def _look(position: int) -> tuple[str, str]:
    """Return color and marker of a position; the marker changes after all colors are used."""
    return COLORS[position % len(COLORS)], _MARKERS[position // len(COLORS)]


def _tidy(axes: Axes) -> None:
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
