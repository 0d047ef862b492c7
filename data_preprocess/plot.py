"""Length histograms of checked files, as one PNG."""

from collections.abc import Sequence
from pathlib import Path

from verl_relift.data.findings import FileSummary

from .output import OutputFolder

_BINS = 40


def length_histograms(files: Sequence[FileSummary], path: str) -> None:
    """Draw prompt and target lengths, one row of panels a file.

    Args:
        files: the summaries of a check.
        path: the PNG to write.

    Raises:
        OSError: the image cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1 + 2.2 * len(files)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(files), 2, squeeze=False)
    for summary, (left, right) in zip(files, panels, strict=True):
        for panel, name, lengths in ((left, "prompt", summary.prompts), (right, "target", summary.targets)):
            panel.set_title(f"{Path(summary.file).name}: {name}", fontsize=9)
            panel.set_xlabel(summary.unit, fontsize=8)
            panel.set_ylabel("rows", fontsize=8)
            panel.tick_params(labelsize=8)
            if lengths:
                panel.hist(lengths, bins=min(_BINS, max(lengths) + 1), range=(0, max(lengths) + 1), color="#4878a8")
                middle = sorted(lengths)[len(lengths) // 2]
                panel.axvline(middle, color="#303030", linewidth=1, label=f"median {middle:,}")
                panel.legend(fontsize=8, frameon=False)
            else:
                panel.text(0.5, 0.5, "none", ha="center", va="center", transform=panel.transAxes, fontsize=9)
            panel.spines[["top", "right"]].set_visible(False)
    target = Path(path)
    with OutputFolder(target.parent) as output:
        figure.savefig(output.path(target.name), format="png", dpi=110)
