"""Write docs/evidence.md and its image from the records: `python -m benchmarks.evidence.report [--check]`

Every sentence about results is computed from records; what has none is said to be missing.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.evidence import plots, records
from benchmarks.evidence.cell import best_value, selected_by
from benchmarks.evidence.design import (
    ALL,
    FIRST_PASS,
    REAL,
    SMALL,
    Setting,
    Study,
    cells,
    trial_name,
    trials,
)
from benchmarks.evidence.effects import (
    Effect,
    Verdict,
    combinations,
    holm,
    interactions,
    interval,
    main_effects,
    pairs_of,
)
from benchmarks.evidence.records import Record, measures
from benchmarks.reproduce.report import table

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
IMAGE = "evidence.png"  # beside the records
AVERAGE = "average"
# What the real model's part compares; the first is asked whether it is ahead of the second.
COMPARED = (
    ("grpo", "base"),
    ("own_step.acc0.one", "grpo"),
    ("own_step.acc0.one", "sft"),
    ("own_step.acc0.one", "sft_then_rl"),
    ("own_step.acc0.one", "in_mean.always.shaped"),
    ("own_step.acc0.one", "spliced.acc0.one"),
    ("own_step.acc0.one", "chord_phi"),
    ("own_words.acc0.one", "own_step.acc0.one"),
    ("own_words.acc0.one", "grpo"),
)


def render(small: Sequence[Record], real: Sequence[Record], image: str | None) -> str:
    """Return the page.

    Args:
        small: records of the small study.
        real: records of the real model.
        image: path of the image from the page, or None.
    """
    parts = [
        "# Evidence: gate, placement, weight",
        "`python -m benchmarks.evidence.report` writes this page from the records in `benchmarks/results/evidence`; "
        "verdicts are computed. A cell is one training with one seed.",
        "## What is known",
        _progress(small, real),
        *_answers(small, real),
        *([f"![Accuracy by gate and placement]({image})"] if image else []),
        "## How it is measured",
        *_method(),
        "## The arithmetic task",
        *(part for setting in SMALL.settings for part in _arithmetic(setting, small)),
        "## A pretrained language model",
        *(part for setting in REAL.settings for part in _pretrained(setting, real)),
        "## The search",
        *(part for study, found in ((SMALL, small), (REAL, real)) for part in _search(study, found)),
        "## Every cell",
        *_everything([*small, *real]),
    ]
    return "\n\n".join(parts) + "\n"


# ---- the first screen ----


def _progress(small: Sequence[Record], real: Sequence[Record]) -> str:
    rows = []
    for study, found in ((SMALL, small), (REAL, real)):
        done = {record.cell for record in found if not record.untuned}
        parts = {"search": trials(study)} | {name: cells(study, [name]) for name in study.blocks if name in FIRST_PASS}
        for name, planned in parts.items():
            counted = sum(cell.name in done for cell in planned)
            rows.append([study.name, name, str(counted), str(len(planned))])
    return table(["study", "part (parts share cells)", "cells done", "planned"], rows)


def _answers(small: Sequence[Record], real: Sequence[Record]) -> list[str]:
    found = []
    for setting in SMALL.settings:
        for effect in _family(setting, small, main_effects):
            if effect.verdict is not Verdict.UNDECIDED:
                found.append([setting.name, effect.name, _signed(effect), str(len(effect.cells)), effect.verdict])
    for setting in (*SMALL.settings, *REAL.settings):
        of_study = small if setting in SMALL.settings else real
        for effect in _sequences(setting, of_study):
            if effect.verdict is not Verdict.UNDECIDED:
                found.append([setting.name, effect.name, _signed(effect), str(len(effect.cells)), effect.verdict])
    for setting in REAL.settings:
        for effect in _real_pairs(setting, real):
            if effect.verdict is not Verdict.UNDECIDED:
                found.append([setting.name, effect.name, _signed(effect), str(len(effect.cells)), effect.verdict])
    if not found:
        return ["No effect is decided: every comparison lacks cells, or its interval contains 0 after the correction."]
    return [
        "Decided effects on the average accuracy, in points with 95% intervals. A comparison that is not in this table "
        "lacks cells or is undecided; all are further down.",
        table(["setting", "effect", "difference", "cells", "verdict"], found),
    ]


# ---- how ----


def _method() -> list[str]:
    levels = [
        ["gate", "`acc0`, `acc25`, `acc50`: at most 0, 25%, 50% of the rollouts are right; `always`; `difficulty`: "
         "with the probability that a rollout is wrong"],
        ["placement", "`own_step`: buffer and an optimizer step of its own (ReLIFT); `spliced`: in place of the "
         "rollouts (HPT); `in_mean`: a row in the group's mean (LUFFY); `out_of_mean`: a row that no rollout is "
         "compared with; `own_words`: as `own_step`, but what the policy writes in view of the solution"],
        ["weight", "of -log p of a token: `one`; `phi`, p (1 - p); `shaped`, 0.1 p / (p + 0.1)^2; `probability`, p"],
    ]  # fmt: skip
    settings = [
        [study.name, setting.name, setting.title, str(setting.steps), str(setting.samples)]
        for study in ALL.values()
        for setting in study.settings
    ]
    return [
        "A combination of the three factors is `method=factorial` or `method=relift` with settings "
        "([methods.md](methods.md#weights-of-tokens)); everything else is the same. All 100 can be run. The first pass "
        "is a part: every gate with every placement at weight `one`, every weight with every placement at gate `acc0`, "
        "and the gates `always` and `difficulty` with every weight at three placements.",
        table(["factor", "levels"], levels),
        table(["study", "setting", "what it is", "steps", "answers to a question"], settings),
        "On every machine, cells of the arithmetic task start from the weights in `benchmarks/evidence/bases`, and "
        "those of the pretrained model train in bf16.",
        "Learning rates: the RL rate is the best of three for RL alone, and all methods have it. Each method then has "
        f"one more search, of {_number_of_values(SMALL)} values in the study small and {_number_of_values(REAL)} in "
        "the study real, for its supervised rate or its coefficient; a placement with a weight is "
        "searched at the gate `acc0`. Trials have a seed and questions of their own, 100 for each level or set of word "
        "problems. A setting without trials takes the values of its study's first.",
        "`configured.NAME` is a method with the values of its configuration and the searched RL rate.",
        "Sequences: SFT, then RL, where SFT spends as many demonstrations, or operations, as the method beside it.",
        "Effects: means of paired differences. Intervals come from a bootstrap over questions and pairs, with "
        "Student's t; Holm's procedure corrects each table. One pair has no interval and decides nothing.",
        "Accuracies: the interval comes from the number of questions alone; in brackets the range of the seeds.",
        "Rerun any cell: `python -m benchmarks.evidence --study STUDY --output DIR --cell NAME`. The whole: without "
        "`--cell`; more seeds: `--seeds 2 3`; the other combinations: `--block everything`.",
    ]


# ---- results ----


def _family(setting: Setting, found: Sequence[Record], effects) -> list[Effect]:
    own = combinations(record for record in found if record.setting == setting.name)
    return holm(effects(own, measures(own[0].right)[AVERAGE])) if own else []


def _sequences(setting: Setting, found: Sequence[Record]) -> list[Effect]:
    own = [record for record in found if record.setting == setting.name]
    matching = dict.fromkeys((r.treatment, r.settings["matches"]) for r in own if r.settings["matches"])
    if not matching:
        return []
    sources = measures(own[0].right, setting.train)[AVERAGE]
    compared = [pairs_of(own, sequence, matched, sources) for sequence, matched in matching]
    return holm([effect for effect in compared if effect is not None])


def _real_pairs(setting: Setting, found: Sequence[Record]) -> list[Effect]:
    own = [record for record in found if record.setting == setting.name]
    if not own:
        return []
    sources = measures(own[0].right, setting.train)[AVERAGE]
    compared = [pairs_of(own, one, other, sources) for one, other in COMPARED]
    return holm([effect for effect in compared if effect is not None])


def _arithmetic(setting: Setting, found: Sequence[Record]) -> list[str]:
    own = [r for r in found if r.setting == setting.name and r.tried is None and not r.untuned]
    if not own:
        return [f"### {setting.name}", "No cell of this setting is done."]
    parts = [f"### {setting.name}", _accuracies(own)]
    for title, effects in (("Main effects", main_effects), ("Interactions", interactions)):
        family = _family(setting, own, effects)
        parts += (
            [f"{title}, average accuracy in points:", _effects(family)] if family else [f"{title}: no pair of cells."]
        )
    family = _sequences(setting, own)
    parts += ["Sequence against mixture, matched:", _effects(family)] if family else ["No matched sequence is done."]
    return parts


def _pretrained(setting: Setting, found: Sequence[Record]) -> list[str]:
    own = [r for r in found if r.setting == setting.name and r.tried is None and not r.untuned]
    if not own:
        return [f"### {setting.name}", "No cell of this setting is done."]
    parts = [f"### {setting.name}", _accuracies(own)]
    for title, family in (("Methods", _real_pairs(setting, own)), ("Sequences, matched", _sequences(setting, own))):
        parts += (
            [f"{title}, average accuracy in points:", _effects(family)] if family else [f"{title}: no pair of cells."]
        )
    return parts


def _accuracies(own: Sequence[Record]) -> str:
    """Return accuracies by treatment, with the interval that comes from the questions, and the range of the seeds."""
    shown = measures(own[0].right, own[0].settings["train"])
    by_treatment: dict[str, list[Record]] = defaultdict(list)
    for record in own:
        by_treatment[record.treatment].append(record)
    rows = []
    for name, same in by_treatment.items():
        values = []
        for sources in shown.values():
            value, width = interval(same, sources)
            each = sorted(record.accuracy(sources) for record in same)
            seeds = f" ({100 * each[0]:.1f} to {100 * each[-1]:.1f})" if len(each) > 1 else ""
            values.append(f"{100 * value:.1f} ± {100 * width:.1f}{seeds}")
        mean = lambda of, same=same: sum(map(of, same)) / len(same)  # noqa: E731
        rows.append(
            [
                f"`{name}`",
                str(len(same)),
                *values,
                f"{mean(lambda r: r.demonstrations):.0f}",
                f"{mean(lambda r: r.compute.sft_tokens + r.compute.rl_tokens) / 1e3:.0f}",
                f"{mean(lambda r: r.compute.flops):.3g}",
            ]
        )
    header = ["treatment", "cells", *(f"{name}, %" for name in shown)]
    header += ["demonstrations", "thousand trained tokens", "FLOPs"]
    return table(header, rows)


def _effects(family: Sequence[Effect]) -> str:
    rows = [
        [
            effect.name,
            _signed(effect),
            str(effect.units),
            f"{effect.corrected:.3f}" if effect.half_width is not None else "",
            f"**{effect.verdict}**" if effect.verdict is not Verdict.UNDECIDED else effect.verdict,
        ]
        for effect in family
    ]
    return table(["comparison", "difference", "pairs", "corrected p", "verdict"], rows)


def _signed(effect: Effect) -> str:
    width = "" if effect.half_width is None else f" ± {100 * effect.half_width:.1f}"
    return f"{100 * effect.value:+.1f}{width}"


def _number_of_values(study: Study) -> int:
    return len(study.trials[-1].knobs[-1].values)


def _search(study: Study, found: Sequence[Record]) -> list[str]:
    done = {record.cell: record for record in found if record.tried is not None and not record.untuned}
    if not done:
        return [f"Study {study.name}: none of {len(trials(study))} trials is done."]
    rows, complete, at_an_end = [], 0, 0
    for treatment in study.trials:
        knob = treatment.knobs[-1]
        trial = {value: done.get(trial_name(knob, value, study.settings[0])) for value in knob.values}
        shown = {value: f"{100 * selected_by(record):.1f}" if record else "missing" for value, record in trial.items()}
        if all(trial.values()):
            complete += 1
            best = best_value(knob, trial)
            shown[best] = f"**{shown[best]}**"
            at_an_end += best in (knob.values[0], knob.values[-1])
        values = "; ".join(f"{value:g}: {text}" for value, text in shown.items())
        rows.append([f"`{knob.name}`, `{knob.key}`", values])
    lacking = len(rows) - complete
    unnamed = sum(not record.base for record in done.values())
    other = (
        f" {unnamed} trials start from another base model of the same recipe, which was not kept; those of one knob "
        "always start from the same."
        if unnamed
        else ""
    )
    waits = f" {lacking} searches lack trials: a cell is repeated if a missing one turns out best." if lacking else ""
    return [
        f"Study {study.name}, setting {study.settings[0].name}: accuracy on the selection questions, in percent; bold: "
        f"chosen. Of {complete} complete searches, {at_an_end} choose the first or last value, so that a wider "
        f"search could choose another.{waits}{other}",
        table(["knob", "values"], rows),
    ]


def _everything(found: Iterable[Record]) -> list[str]:
    found = list(found)
    if not found:
        return ["No cell is done."]
    rows = [
        [
            f"`{record.cell}`",
            "; ".join(
                f"{name} {100 * record.accuracy(sources):.1f}"
                for name, sources in measures(record.right, record.settings["train"]).items()
            ),
            str(record.demonstrations),
            f"{record.seconds:.0f}",
            record.date,
            "untuned" if record.untuned else "",
        ]
        for record in found
    ]
    machines = Counter(record.machine.split(", load")[0] for record in found)
    return [
        "Machines: " + "; ".join(f"{name} ({count} cells)" for name, count in machines.items()) + ".",
        table(["cell", "accuracy, %", "demonstrations", "seconds", "date", ""], rows),
    ]


def main() -> int:
    """Run the command.

    Returns:
        The exit status; with `--check` 1 if the page is not what the records give.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=records.FOLDER)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is another one")
    options = parser.parse_args()
    small, real = (records.read_all(options.records, study.name) for study in (SMALL, REAL))
    image = options.records / IMAGE
    if options.check:
        drawn = image.exists()
    elif not (drawn := plots.placements(small, [s.name for s in SMALL.settings], image)):
        image.unlink(missing_ok=True)  # of records that are gone
    text = render(small, real, f"../benchmarks/results/evidence/{IMAGE}" if drawn else None)
    if options.check:
        return int(options.page.read_text() != text)
    options.page.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
