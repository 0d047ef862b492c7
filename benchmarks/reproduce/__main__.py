"""Run a study: `python -m benchmarks.reproduce --output DIR [--reduced | --only METHOD ...] [--jobs N]`

After an interruption, the same command continues. DIR/report/ has the report once all cells are done. `--reduced`
repeats a few cells of the study, compares them with the kept record, and exits with status 1 if they disagree.
"""

import argparse
import dataclasses
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.reproduce import agreement, records, report
from benchmarks.reproduce.cell import Folders
from benchmarks.reproduce.run import read_done, run
from benchmarks.reproduce.study import REDUCED_BASES, REDUCED_METHODS, REDUCED_SEEDS, STUDIES, Study, StudyError, plan


def say(text: str) -> None:
    """Print a line of progress with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


def main() -> int:
    """Run the command.

    Returns:
        The exit status: 0: all cells are done and, with `--reduced`, agree with the record; 1: cells failed or
        disagree; 2: invalid arguments.
    """
    options = _parser().parse_args()
    # SIGTERM unwinds like Ctrl-C, so that running cells end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _study(options)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2


def _study(options: argparse.Namespace) -> int:
    study, recorded = STUDIES[options.study], []
    if options.reduced:
        file = options.record / f"{study.name}.jsonl"
        if not file.exists():
            raise StudyError(f"{file}: no record to compare with")
        study, recorded = reduced(study), records.read(file)
    if options.steps:
        study = dataclasses.replace(study, steps=options.steps)
    folders = Folders(options.output.resolve())
    planned = plan(study, options.only, options.seeds)
    missing = run(study, planned, folders, options.jobs, say)
    if missing:
        print(f"missing: {', '.join(missing)}; run the same command again to retry", file=sys.stderr)
        return 1
    made = [record for record in read_done(folders.root) if record.study == study.name]
    report.write(study, made, folders.root / "report")
    say(f"the report is in {folders.root / 'report'}")
    if not options.reduced:
        return 0
    names = {cell.name for cell in planned}
    rows = agreement.compare([record for record in made if record.cell in names], recorded)
    print(agreement.table(rows))
    return 0 if all(row.agrees for row in rows) else 1


def reduced(study: Study) -> Study:
    """Return the study with few of its cells, each as in the whole study."""
    return dataclasses.replace(
        study,
        bases=study.bases[:REDUCED_BASES],
        seeds=REDUCED_SEEDS,
        methods=tuple(study.method(name) for name in REDUCED_METHODS),
        variants=(),
        ablations=(),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the study; a study found there is continued"
    )
    parser.add_argument("--study", choices=STUDIES, default="main")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="METHOD", help="run these methods and the methods that they need"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="run these of the study's seeds")
    parser.add_argument("--jobs", type=int, default=1, help="concurrent cells; default %(default)s")
    parser.add_argument(
        "--steps", type=int, help="steps of methods with rollouts, to try things out; default: the study's"
    )
    parser.add_argument("--reduced", action="store_true", help="repeat few cells and compare them with the record")
    parser.add_argument(
        "--record", type=Path, default=report.RECORD, help="folder of the kept record; default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
