"""Make one self-contained HTML page from the folders of one or more runs, and a PNG of its main curves beside it.

RUN is a run's folder (its trainer.default_local_dir), finished or in progress. Several runs share each chart. With two
or more evaluations, the page shows answers of the first and the last side by side. docs/watch.md says what to look at.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..run.display import visible
from ..usage import argument_parser
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
        if options.output is None:
            options.output = _default_output(options.runs)
        in_progress = _report(options)
        while options.watch and in_progress:
            time.sleep(options.watch)
            in_progress = _report(options)
    except ReportError as error:
        print(f"report: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _default_output(runs: Sequence[str]) -> Path:
    if len(runs) > 1:
        raise ReportError("several runs: say where their page goes with --output FILE.html")
    return _labeled(runs[0])[1] / "report.html"


def _report(options: argparse.Namespace) -> bool:
    """Write the page; returns whether one of its runs is in progress."""
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
    in_progress = any(run.in_progress for run in runs)
    reload = options.watch if in_progress else None
    write_page(options.output, render_page(runs, evaluations, options.title, reload))
    name = options.output.stem  # each page has a picture of its own
    curves = options.output.with_name("curves.png" if name == "report" else f"{name}-curves.png")
    write_curves(curves, runs)
    for run in runs:
        for problem in run.problems:
            print(visible(f"{run.label}: {problem}"), file=sys.stderr)
    states = ", ".join(f"{run.label}: {run.state}" for run in runs)
    print(visible(f"{options.output} and {curves.name} ({states})"), flush=True)
    return in_progress


def _labeled(argument: str) -> tuple[str | None, Path]:
    label, found, folder = argument.partition("=")
    return (label, Path(folder)) if found else (None, Path(argument))


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 1.0:
        raise argparse.ArgumentTypeError("at least 1 second")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser("verl_relift.report", __doc__, "RUN [LABEL=RUN ...]")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or LABEL=FOLDER")
    parser.add_argument("--output", type=Path, metavar="FILE.html", help="default for one run: RUN/report.html")
    parser.add_argument(
        "--watch",
        type=_seconds,
        nargs="?",
        const=60.0,
        metavar="SECONDS",
        help="make the page again every so often (60) until the runs have ended; an open page reloads itself",
    )
    parser.add_argument("--evaluation", nargs="+", default=[], metavar="[LABEL=]DIR", help="evaluations to show")
    parser.add_argument("--title", help="heading of the page; default: the labels of the runs")
    return parser


if __name__ == "__main__":
    main()
