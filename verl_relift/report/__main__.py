"""Make one self-contained HTML page from the folders of one or more runs, and curves.png next to it.

    python -m verl_relift.report RUN [RUN ...] --output report.html [--evaluation LABEL=DIR ...]

RUN is a run's folder (its trainer.default_local_dir), or LABEL=FOLDER. Several runs share each chart. With two or more
evaluations, the page shows answers of the first and the last side by side. docs/evaluate.md describes the page.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..run.display import visible
from .errors import ReportError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: command-line arguments; None reads `sys.argv`.

    Raises:
        SystemExit: with status 2, after one line on stderr, if an argument or a folder is invalid.
    """
    options = _parser().parse_args(arguments)
    try:
        _report(options)
    except ReportError as error:
        print(f"report: {error}", file=sys.stderr)
        sys.exit(2)


def _report(options: argparse.Namespace) -> None:
    from .charts import write_curves
    from .page import render_page, write_page
    from .runs import read_run
    from .tables import read_evaluation

    runs = [read_run(folder, label) for label, folder in map(_labeled, options.runs)]
    labels = [run.label for run in runs]
    if len(set(labels)) < len(labels):
        raise ReportError(f"two runs are named {max(labels, key=labels.count)}; name them with LABEL=FOLDER")
    evaluations = [read_evaluation(argument) for argument in options.evaluation]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_page(options.output, render_page(runs, evaluations, options.title))
    curves = options.output.with_name("curves.png")
    write_curves(curves, runs)
    for run in runs:
        for problem in run.problems:
            print(visible(f"{run.label}: {problem}"), file=sys.stderr)
    print(f"{options.output} ({options.output.stat().st_size / 1e6:.2f} MB), {curves}")


def _labeled(argument: str) -> tuple[str | None, Path]:
    label, found, folder = argument.partition("=")
    return (label, Path(folder)) if found else (None, Path(argument))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m verl_relift.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or LABEL=FOLDER")
    parser.add_argument("--output", type=Path, required=True, help="the HTML page; curves.png is written next to it")
    parser.add_argument("--evaluation", nargs="+", default=[], metavar="[LABEL=]DIR", help="evaluations to show")
    parser.add_argument("--title", help="heading of the page; default: the labels of the runs")
    return parser


if __name__ == "__main__":
    main()
