"""Effects and their intervals on records whose truth is known."""

import dataclasses
import random
from itertools import product

import pytest

from benchmarks.evidence.design import FACTORS
from benchmarks.evidence.effects import (
    Effect,
    Verdict,
    combinations,
    estimate,
    holm,
    interactions,
    interval,
    main_effects,
    pairs_of,
)
from benchmarks.evidence.records import Record
from benchmarks.reproduce.records import Compute

SOURCES = ["arithmetic/easy", "arithmetic/hard"]
QUESTIONS = 400


def make(chance: float, seed: int = 1, **fields) -> Record:
    """A record in which each question is right with the same chance."""
    levels = {"gate": "acc0", "placement": "own_step", "weight": "one", **fields}
    name = ".".join(levels[f] for f in ("placement", "gate", "weight"))
    rng = random.Random(f"{name}{seed}")
    return Record(
        cell=f"{name}-main-seed{seed}",
        study="small",
        setting="main",
        treatment=fields.get("treatment", name),
        gate=levels["gate"],
        placement=levels["placement"],
        weight=levels["weight"],
        seed=seed,
        tried=None,
        chosen={},
        untuned=False,
        settings={"train": "", "matches": ""},
        samples=1,
        right={s: "".join(str(int(rng.random() < chance)) for _ in range(QUESTIONS)) for s in SOURCES},
        compute=Compute(0, 0, 0, 0, 0, 0, 0.0),
        demonstrations=0,
        second_round_tokens=0,
        seconds=0.0,
        date="2026-11-26",
        machine="",
        versions={},
    )


def grid(chance, seeds=(1, 2)) -> list[Record]:
    """Every gate with every placement at weight one."""
    return [
        make(chance(gate, placement), seed, gate=gate, placement=placement)
        for gate, placement, seed in product(FACTORS["gate"], FACTORS["placement"], seeds)
    ]


def named(effects, name) -> Effect:
    return next(effect for effect in effects if effect.name == name)


def test_a_true_main_effect_is_found_and_another_is_not():
    effects = holm(main_effects(grid(lambda gate, _: 0.8 if gate == "always" else 0.5), SOURCES))
    found = named(effects, "gate: always against acc0")
    assert found.value == pytest.approx(0.3, abs=0.04) and found.units == 10 and found.verdict is Verdict.HIGHER
    assert found.half_width < 0.06
    others = [e for e in effects if e is not found and e.name.startswith(("gate", "placement"))]
    assert len(others) == 7 and all(e.verdict is Verdict.UNDECIDED for e in others)
    assert len(found.cells) == 20


def test_no_level_without_its_pair():
    cells = [make(0.5, gate="always"), make(0.5, placement="spliced")]
    assert main_effects(cells, SOURCES) == [] and interactions(cells, SOURCES) == []


def test_an_interaction_is_a_difference_of_differences():
    effects = interactions(
        grid(lambda gate, placement: 0.9 if (gate, placement) == ("always", "spliced") else 0.5, (1, 2, 3)), SOURCES
    )
    found = named(effects, "gate always with placement spliced")
    assert found.value == pytest.approx(0.4, abs=0.06) and found.units == 3 and found.half_width is not None
    assert abs(named(effects, "gate always with placement in_mean").value) < 0.1


def test_one_unit_has_no_interval_and_decides_nothing():
    (found,) = holm([pairs_of([make(0.9, treatment="a"), make(0.1, treatment="b")], "a", "b", SOURCES)])
    assert found.half_width is None and found.units == 1 and found.verdict is Verdict.UNDECIDED
    assert pairs_of([make(0.9, treatment="a")], "a", "b", SOURCES) is None


def test_the_interval_covers_the_truth_as_often_as_it_says():
    covered = 0
    for trial in range(60):
        units = [((1, make(0.6, 1000 * trial + k, gate="always")), (-1, make(0.5, 1000 * trial + k))) for k in range(5)]
        found = estimate("", units, SOURCES[:1])
        covered += abs(found.value - 0.1) <= found.half_width
    assert covered >= 53


def test_holm_is_the_textbooks():
    effects = [Effect(str(i), 0.1, 0.1, p, 3, ()) for i, p in enumerate((0.01, 0.04, 0.03, 0.005))]
    assert [e.corrected for e in holm(effects)] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [e.verdict for e in holm(effects)] == ["higher", "undecided", "undecided", "higher"]


def test_untuned_cells_and_trials_are_in_no_effect():
    cells = [make(0.5), dataclasses.replace(make(0.5), untuned=True), dataclasses.replace(make(0.5), tried=1.0)]
    assert combinations(cells) == cells[:1]
    assert (
        pairs_of([dataclasses.replace(c, treatment=t) for c, t in zip(cells, "ab", strict=False)], "a", "b", SOURCES)
        is None
    )


def test_a_cells_own_interval_is_that_of_its_questions():
    record = dataclasses.replace(make(0.5), right={"arithmetic/easy": "10" * 50}, samples=1)
    value, half_width = interval([record], ["arithmetic/easy"])
    assert value == 0.5 and half_width == pytest.approx(1.96 * 0.05)
    four = dataclasses.replace(record, right={"arithmetic/easy": "40" * 50}, samples=4)
    assert interval([four, four], ["arithmetic/easy"]) == pytest.approx((0.5, 1.96 * 0.05))
