"""Draws the accuracy of every combination of gate and placement, one panel a setting."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure

from benchmarks.evidence.design import GATES, PLACEMENTS
from benchmarks.evidence.effects import combinations, interval
from benchmarks.evidence.records import Record, measures
from verl_relift.report.charts import COLORS

LINES = {"grpo": ":", "sft": "--", "sft_then_rl": "-"}  # treatments that are lines, not marks


def placements(cells: Sequence[Record], settings: Sequence[str], path: Path) -> bool:
    """Draw accuracy over gates, a color for each placement, at weight 1; bars are intervals from the questions.

    Args:
        cells: records of the small study.
        settings: names of the settings, one panel each.
        path: image to write.

    Returns:
        Whether there was anything to draw.
    """
    shown = [name for name in settings if any(r.setting == name and r.weight == "one" for r in combinations(cells))]
    if not shown:
        return False
    figure = Figure(figsize=(1.5 + 4.5 * len(shown), 4.5), layout="constrained")
    for axes, setting in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        own = [r for r in cells if r.setting == setting and r.tried is None and not r.untuned]
        sources = measures(own[0].right)["average"]
        for number, placement in enumerate(PLACEMENTS):
            marked = [r for r in combinations(own) if r.placement == placement and r.weight == "one"]
            points = [(list(GATES).index(r.gate) + 0.1 * (number - 2), *interval([r], sources)) for r in marked]
            if points:
                places, values, widths = zip(*points, strict=True)
                axes.errorbar(
                    places, [100 * v for v in values], [100 * w for w in widths],
                    fmt="o", color=COLORS[number], label=placement, capsize=2,
                )  # fmt: skip
        for name, style in LINES.items():
            lines = [r.accuracy(sources) for r in own if r.treatment == name]
            if lines:
                axes.axhline(100 * sum(lines) / len(lines), color="#555555", linestyle=style, lw=1, label=name)
        axes.set_xticks(range(len(GATES)), list(GATES))
        axes.set(title=setting, xlabel="gate", ylabel="average accuracy, %", xlim=(-0.5, len(GATES) - 0.5))
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(8, 4 * len(shown)), frameon=False, fontsize=9)
    figure.savefig(path, dpi=100)
    return True
