"""Compare the studies: `python -m benchmarks.reproduce.overview [FOLDER]`

Reads FOLDER/<study>.jsonl and writes FOLDER/overview.md.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.reproduce import records
from benchmarks.reproduce.claims import Claim, evaluate_claims
from benchmarks.reproduce.records import AVERAGE, OOD_AVERAGE, Record, of_method
from benchmarks.reproduce.report import RECORD, demonstrations, mean_deviation, signed, table
from benchmarks.reproduce.study import STUDIES, Study

COMPARED = ("base", "rl", "sft", "sft_then_rl", "sft_few_then_rl", "relift")
AGAINST = ("rl", "sft", "sft_then_rl", "sft_few_then_rl")  # is ReLIFT ahead of it?
MEASURES = (AVERAGE, "hardest", OOD_AVERAGE)
OUTPUT = "overview.md"


def render(cells: Mapping[str, Sequence[Record]]) -> str:
    """Return the overview as Markdown.

    Args:
        cells: the records by study.
    """
    studies = [study for name, study in STUDIES.items() if name in cells]
    titles = {method.name: method.title for study in STUDIES.values() for method in study.methods}
    parts = [
        "# The studies side by side",
        "Command: `python -m benchmarks.reproduce.overview`, from the records beside this file. In percent: mean over "
        "cells ± standard deviation between cells; of a difference, its 95% interval. The average out of distribution "
        "is of other levels in the study main than in the others.",
        table(
            ["study", "base models", "demonstrations", "RL steps", "passes of SFT", "cells"],
            [_setting(study, cells[study.name]) for study in studies],
        ),
    ]
    for measure in MEASURES:
        parts += [
            f"## {measure}",
            table(
                ["study", *(titles[name] for name in COMPARED), *(f"ReLIFT > {titles[name]}" for name in AGAINST)],
                [_row(study.name, cells[study.name], measure) for study in studies],
            ),
        ]
    return "\n\n".join(parts) + "\n"


def _setting(study: Study, cells: Sequence[Record]) -> list[str]:
    bases = ", ".join(f"{base.name} ({base.steps} steps)" for base in study.bases)
    compared = [record for record in cells if record.method in COMPARED]
    passes = str(study.method("sft").passes)
    return [study.name, bases, demonstrations(study.task), str(study.steps), passes, str(len(compared))]


def _row(study: str, cells: Sequence[Record], measure: str) -> list[str]:
    values = [[100 * record.measure(measure) for record in of_method(cells, name)] for name in COMPARED]
    claims = [Claim("relift", other, measure, "") for other in AGAINST]
    tested = {one.claim.worse: f"{signed(one.difference)}, {one.verdict}" for one in evaluate_claims(cells, claims)}
    return [
        study,
        *(mean_deviation(own) if own else "" for own in values),
        *(tested.get(other, "") for other in AGAINST),
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=RECORD)
    folder = parser.parse_args().folder
    files = [folder / f"{study}.jsonl" for study in STUDIES]
    (folder / OUTPUT).write_text(render({file.stem: records.read(file) for file in files if file.exists()}))


if __name__ == "__main__":
    main()
