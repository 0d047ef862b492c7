"""Write the report of a study from its cells: `python -m benchmarks.reproduce.report CELLS --output DIR`

CELLS is a study's folder `cells/`, or a file of records. Writes DIR/<study>.jsonl, DIR/<study>.md and two images.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.reproduce import plots, records
from benchmarks.reproduce.claims import MOST_DEMONSTRATIONS, demonstration_share, evaluate_claims
from benchmarks.reproduce.estimates import Difference, summarize
from benchmarks.reproduce.records import AVERAGE, OOD_AVERAGE, Record, measures, of_method
from benchmarks.reproduce.study import STUDIES, Kind, Method, Study, Task, plan
from verl_relift.quickstart.summary import LEVELS

RECORD = Path(__file__).parents[1] / "results" / "reproduction"  # the kept records
EXPONENT = 12  # FLOPs are shown in units of 10^12


def write(study: Study, cells: Sequence[Record], folder: Path) -> None:
    """Write records, report and images of a study.

    Args:
        study: the study.
        cells: its records.
        folder: where the files go.
    """
    records.write(folder / f"{study.name}.jsonl", sorted(cells, key=lambda record: record.cell))
    plots.curves(study, cells, folder / f"{study.name}-curves.png")
    plots.demonstrations(study, cells, folder / f"{study.name}-demonstrations.png")
    (folder / f"{study.name}.md").write_text(render(study, cells))


def render(study: Study, cells: Sequence[Record]) -> str:
    """Return the report as Markdown."""
    sections = [
        _head(study, cells),
        _accuracy(study, cells),
        _compute(study, cells),
        _images(study),
        _ablations(study, cells),
        _claims(study, cells),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(study: Study, cells: Sequence[Record]) -> str:
    dates = sorted({record.date for record in cells})
    bases = "; ".join(f"{base.name}: {base.steps} steps of pretraining, seed {base.seed}" for base in study.bases)
    questions = ", ".join(f"{count} {level}" for level, count in cells[0].questions.items())
    machines = sorted({record.machine.split(", load")[0] for record in cells})
    return "\n\n".join(
        [
            f"# Reproduction on the small arithmetic task, study {study.name}, {_range(dates)}",
            f"Command: `python -m benchmarks.reproduce --study {study.name} --output DIR`. {'; '.join(machines)}. "
            + ", ".join(f"{name} {version}" for name, version in cells[0].versions.items())
            + f". {len(cells)} of the study's {len(plan(study))} cells, whose own times add up to "
            f"{sum(record.seconds for record in cells) / 3600:.1f} hours.",
            f"Base models: {bases}. {study.task.train_size} training questions; demonstrations: "
            f"{demonstrations(study.task)}. Greedy evaluation on other questions: {questions}. "
            f"Methods with rollouts make {study.steps} steps. A cell is one training of a method from a base model "
            "with a seed, which determines the order of the questions and every sampled token. "
            "`benchmarks/reproduce/report.py` writes this file from the records in this folder.",
        ]
    )


def demonstrations(task: Task) -> str:
    """Return in words which questions have a demonstration."""
    share = "every question" if task.demonstrated == 1 else f"{task.demonstrated:.0%} of the questions"
    levels = f" of the level {', '.join(task.demonstrated_levels)}" if task.demonstrated_levels else ""
    return share + levels + (f"; {task.terse:.0%} of them, and of pretraining, the answer alone" if task.terse else "")


def _range(dates: Sequence[str]) -> str:
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def _accuracy(study: Study, cells: Sequence[Record]) -> str:
    parts = ["## Accuracy", "In percent: mean over cells ± standard deviation between cells."]
    parts.append(_accuracy_table(study.methods, cells))
    parts.append("Over all bases, the deviation includes how far the bases are from each other. By base:")
    for base in study.bases:
        of_base = [record for record in cells if record.base == base.name]
        if of_base:
            parts += [f"### Base {base.name}", _accuracy_table(study.methods, of_base)]
    return "\n\n".join(parts)


def _accuracy_table(methods: Iterable[Method], cells: Sequence[Record]) -> str:
    shown = measures(cells[0].levels)
    rows = [
        [method.title, str(len(own)), *(mean_deviation([100 * r.measure(name) for r in own]) for name in shown)]
        for method in methods
        if (own := of_method(cells, method.name))
    ]
    return table(["method", "cells", *shown], rows)


def mean_deviation(values: Sequence[float]) -> str:
    """Format values as `mean ± deviation`, and a single value alone."""
    summary = summarize(values)
    return f"{summary.mean:.1f}" + ("" if summary.deviation is None else f" ± {summary.deviation:.1f}")


def signed(found: Difference) -> str:
    """Format a difference in percent as `value ± half width`, and without an interval alone."""
    return f"{100 * found.value:+.1f}" + ("" if found.half_width is None else f" ± {100 * found.half_width:.1f}")


def _compute(study: Study, cells: Sequence[Record]) -> str:
    rows = []
    reference = [record.compute.flops for record in of_method(cells, "relift")]
    for method in (*study.methods, *study.variants):
        own = of_method(cells, method.name)
        if not own or method.kind is Kind.EVALUATE:
            continue
        mean = {name: fmean(getattr(r.compute, name) for r in own) for name in vars(own[0].compute)}
        share = fmean(r.demonstrations_used / r.demonstrations_available for r in own)
        ratio = f"{mean['flops'] / fmean(reference):.2f}" if reference else ""
        rows.append(
            [
                method.title,
                *(f"{mean[name]:.0f}" for name in ("rl_steps", "sft_updates")),
                *(f"{mean[name] / 1e3:.0f}" for name in ("rl_tokens", "sft_tokens", "generated_tokens")),
                f"{mean['flops'] / 10**EXPONENT:.2f}",
                ratio,
                f"{fmean(r.demonstrations_used for r in own):.0f} ({share:.1%})",
                f"{fmean(r.seconds for r in own):.0f}",
            ]
        )
    header = ["method", "RL steps", "SFT updates", "thousand RL tokens", "thousand SFT tokens", "thousand generated"]
    header += [f"10^{EXPONENT} FLOPs", "of ReLIFT's", "demonstrations (of those available)", "seconds"]
    return "\n\n".join(
        [
            "## Compute",
            "Means per cell. Trained tokens include prompts. FLOPs are 6 per parameter and trained token, and 2 per "
            "parameter and token that is generated or passed through for its old log-probability; evaluations do not "
            "count. The row of SFT, then RL includes its first stage, except for the seconds. Seconds are wall-clock "
            "time, including startup and evaluations, with other cells running at the same time.",
            table(header, rows),
        ]
    )


def _images(study: Study) -> str:
    return "\n\n".join(
        [
            "## Learning curves",
            f"![Accuracy against FLOPs]({study.name}-curves.png)",
            "## Accuracy against demonstrations",
            f"![Accuracy against demonstrations used]({study.name}-demonstrations.png)",
        ]
    )


def _ablations(study: Study, cells: Sequence[Record]) -> str:
    first = [record for record in cells if record.base == study.bases[0].name]
    shown = (*LEVELS, AVERAGE, OOD_AVERAGE)
    parts = []
    for ablation in study.ablations:
        rows = []
        for value, name in ablation.methods.items():
            own = of_method(first, name)
            if own:
                accuracies = [mean_deviation([100 * r.measure(m) for r in own]) for m in shown]
                used, updates = (
                    mean_deviation(values)
                    for values in ([r.demonstrations_used for r in own], [r.compute.sft_updates for r in own])
                )
                rows.append([value, str(len(own)), *accuracies, used, updates])
        if rows:
            header = [ablation.setting, "cells", *shown, "demonstrations", "SFT updates"]
            parts += [f"### {ablation.title}", table(header, rows)]
    return "\n\n".join([f"## Ablations of ReLIFT, base {study.bases[0].name}", *parts]) if parts else ""


def _claims(study: Study, cells: Sequence[Record]) -> str:
    titles = {method.name: method.title for method in study.methods}
    rows = []
    for tested in evaluate_claims(cells):
        claim = tested.claim
        rows.append(
            [
                f"{titles[claim.better]} > {titles[claim.worse]}",
                claim.measure,
                signed(tested.difference),
                str(tested.difference.freedom),
                f"**{tested.verdict}**",
                claim.source,
            ]
        )
    share = demonstration_share(cells, "relift")
    parts = [
        "## The paper's claims on these cells",
        "Differences of means in percent with their 95% interval, from the spread between seeds pooled over both "
        "methods and all bases, with Student's t. A claim holds or is contradicted if the interval excludes 0. Each "
        "row is a separate test without correction for their number. The results are about this task with a model of "
        "0.3 million parameters, and about nothing else.",
        table(["claim", "measure", "difference", "degrees of freedom", "verdict", "in the paper"], rows),
    ]
    if share is not None:
        outcome = "holds" if share <= MOST_DEMONSTRATIONS else "does not hold"
        parts.append(
            f"ReLIFT used {share:.1%} of the available demonstrations. The paper's claim of at most "
            f"{MOST_DEMONSTRATIONS:.0%}: **{outcome}**."
        )
    return "\n\n".join(parts)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path, help="folder or file of records")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    cells = records.read(options.cells)
    for name in sorted({record.study for record in cells}):
        write(STUDIES[name], [record for record in cells if record.study == name], options.output)


if __name__ == "__main__":
    main()
