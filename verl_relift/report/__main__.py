"""Make one self-contained HTML page from the folders of one or more runs, and a PNG of its main curves beside it.

RUN is a run's folder (its trainer.default_local_dir), finished or in progress. Several runs share each chart. With two
or more evaluations, the page shows answers of the first and the last side by side. docs/watch.md says what to look at.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..run.display import visible
from ..usage import argument_parser
from .errors import NoStepYet, ReportError

if TYPE_CHECKING:
    from .runs import Run

# Seconds for which `--watch` waits for a run that ended with steps left: `--max-restarts` starts it again within a
# minute, Slurm a requeued job within two or three.
_PATIENCE = 300.0


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
        if options.output.suffix not in (".html", ".htm") or options.output.is_dir():
            raise ReportError(f"--output {options.output}: the page is a file whose name ends with .html")
        _watch(options) if options.watch else _write(options, _read(options))
    except ReportError as error:
        print(f"report: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _default_output(runs: Sequence[str]) -> Path:
    if len(runs) > 1:
        raise ReportError("several runs: say where their page goes with --output FILE.html")
    return _labeled(runs[0])[1] / "report.html"


def _watch(options: argparse.Namespace) -> None:
    """Make the page again and again until its runs have ended, and some minutes longer if one has steps left."""
    idle = 0.0
    while True:
        try:
            runs = _read(options)
        except NoStepYet as error:
            print(visible(str(error)), flush=True)
            time.sleep(options.watch)
            continue
        in_progress = any(run.in_progress for run in runs)
        waits = not in_progress and idle < _PATIENCE and any(run.may_be_restarted for run in runs)
        note = f"; watching {_PATIENCE / 60:.0f} minutes more for a restart" if waits and not idle else ""
        _write(options, runs, options.watch if in_progress or waits else None, note)
        if not (in_progress or waits):
            return
        time.sleep(options.watch)
        idle = 0.0 if in_progress else idle + options.watch


def _read(options: argparse.Namespace) -> "list[Run]":
    from .runs import read_run

    runs = [read_run(folder, label) for label, folder in map(_labeled, options.runs)]
    labels = [run.label for run in runs]
    if len(set(labels)) < len(labels):
        raise ReportError(f"two runs are named {max(labels, key=labels.count)}; name them with LABEL=FOLDER")
    return runs


def _write(options: argparse.Namespace, runs: "list[Run]", reload: float | None = None, note: str = "") -> None:
    """Write the page and its picture, and say so.

    Args:
        options: of the command line.
        runs: what it shows.
        reload: seconds after which an open page reads itself again; None: never.
        note: what the line that says so ends with.
    """
    from .charts import write_curves
    from .page import render_page, write_page
    from .tables import read_evaluation

    evaluations = [read_evaluation(argument) for argument in options.evaluation]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_page(options.output, render_page(runs, evaluations, options.title, reload))
    name = options.output.stem  # each page has a picture of its own
    curves = options.output.with_name("curves.png" if name == "report" else f"{name}-curves.png")
    write_curves(curves, runs)
    for run in runs:
        for problem in run.problems:
            print(visible(f"{run.label}: {problem}"), file=sys.stderr)
    states = ", ".join(f"{run.label}: {run.state}" for run in runs)
    print(visible(f"{options.output} and {curves.name} ({states}){note}"), flush=True)


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
        help="make the page again every so often (60) until the runs end, restarts included; it reloads itself",
    )
    parser.add_argument("--evaluation", nargs="+", default=[], metavar="[LABEL=]DIR", help="evaluations to show")
    parser.add_argument("--title", help="heading of the page; default: the labels of the runs")
    return parser


if __name__ == "__main__":
    main()
