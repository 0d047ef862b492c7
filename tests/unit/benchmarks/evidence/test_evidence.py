"""The study of gate, placement and weight: its cells, their commands, the search, records, and continuing."""

import dataclasses
import json
from argparse import Namespace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from benchmarks.evidence import __main__ as evidence
from benchmarks.evidence import again, records, tasks
from benchmarks.evidence import cell as making
from benchmarks.evidence.cell import Place
from benchmarks.evidence.design import (
    ALL,
    FACTORS,
    REAL,
    SMALL,
    Cell,
    Kind,
    cells,
    every_cell,
    needs,
    trials,
    with_needed,
)
from benchmarks.evidence.records import Record
from benchmarks.reproduce.records import Compute
from benchmarks.reproduce.study import StudyError
from tests.unit.configurations import overridden
from verl_relift.checks import chosen_method, settings_problems
from verl_relift.methods.registry import METHODS
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.run.budget import spent
from verl_relift.run.composition import Arguments
from verl_relift.stages import stage_arguments

SOURCES = [f"arithmetic/{level}" for level in ("easy", "medium", "hard", "hardest", "ood_long")]
MAIN = SMALL.settings[0]


def by_name(name: str, study=SMALL) -> Cell:
    return next(cell for cell in every_cell(study, (1, 2, 3)) if cell.name == name)


def make_record(cell: Cell, right: str = "1010", study=SMALL, place: Place | None = None, **fields) -> Record:
    """Return a record with the same answers on every level."""
    values = {knob.name: knob.middle for knob in cell.treatment.knobs} if place is None else None
    values = values if values is not None else making.chosen(study, cell, place)
    if cell.tried is not None:
        values[cell.treatment.knobs[-1].name] = cell.tried
    made = Record(
        cell=cell.name,
        study=study.name,
        setting=cell.setting.name,
        treatment=cell.treatment.name,
        gate=cell.treatment.gate,
        placement=cell.treatment.placement,
        weight=cell.treatment.weight,
        seed=cell.seed,
        tried=cell.tried,
        chosen=values,
        untuned=False,
        settings=making.settings(cell, values),
        samples=1,
        right=dict.fromkeys(SOURCES, right),
        compute=Compute(80, 11, 1000, 100, 500, 0, 8e10),
        demonstrations=176,
        second_round_tokens=0,
        seconds=100.0,
        date="2026-11-26",
        machine="2 cores, load 0.0",
        versions={"python": "3.12"},
        base=tasks.base_hash(cell.setting),
    )
    return dataclasses.replace(made, **fields)


# ---- the design ----


def test_the_first_pass_has_every_gate_and_every_weight_with_every_placement():
    planned = {(c.treatment.gate, c.treatment.placement, c.treatment.weight) for c in cells(SMALL) if c.setting is MAIN}
    gates, placements, weights = FACTORS.values()
    assert {(g, p, "one") for g in gates for p in placements} <= planned
    assert {("acc0", p, w) for w in weights for p in placements} <= planned
    whole = {c.name for c in every_cell(SMALL, (1,)) if c.treatment.gate and c.setting is MAIN and c.tried is None}
    assert len(whole) == len(gates) * len(placements) * len(weights)


@pytest.mark.parametrize("study", ALL.values(), ids=ALL)
def test_a_cell_comes_after_those_that_it_needs(study):
    planned = with_needed(study, cells(study, seeds=(1, 2)))
    names = [cell.name for cell in planned]
    assert len(names) == len(set(names))
    for place, cell in enumerate(planned):
        assert set(needs(study, cell)) <= set(names[:place]), cell.name


@pytest.mark.parametrize("study", ALL.values(), ids=ALL)
def test_every_search_has_the_same_budget_and_covers_every_knob(study):
    tried = {}
    for cell in trials(study):
        tried.setdefault(cell.treatment.knobs[-1].name, []).append(cell.tried)
    assert len(tried.pop("grpo")) == 3
    assert {len(values) for values in tried.values()} == {5 if study is SMALL else 3}
    tried["grpo"] = []
    assert all(values == sorted(values) for values in tried.values())
    run = cells(study)
    assert {knob.name for cell in run for knob in cell.treatment.knobs} <= tried.keys()
    assert {cell.seed for cell in trials(study)}.isdisjoint({cell.seed for cell in run})


@pytest.mark.parametrize("study", ALL.values(), ids=ALL)
def test_every_combination_is_a_configuration_without_problems(study, tmp_path):
    first = study.settings[0]
    once = {c.treatment.name: c for c in cells(study) if c.setting is first}
    for cell in once.values():
        values = {knob.name: knob.values[0] for knob in cell.treatment.knobs}
        given = [*making.overrides(cell, values), f"trainer.default_local_dir={tmp_path}"]
        method = next(o for o in given if o.startswith("method=")).partition("=")[2]
        with overridden(*(o for o in given if o != f"method={method}"), name=cell.setting.config, method=method) as c:
            assert list(settings_problems(c)) == [], cell.name
            for knob in cell.treatment.knobs if cell.treatment.kind is Kind.TRAIN else ():
                assert OmegaConf.select(c, knob.key) == values[knob.name]
            _, built = chosen_method(c)
            if cell.treatment.placement in ("spliced", "in_mean", "out_of_mean"):
                assert (built.placement, built.token_weight) == (cell.treatment.placement, cell.treatment.weight)


def test_every_method_has_a_cell():
    run = {override for cell in cells(SMALL) for override in cell.treatment.overrides}
    assert {f"method={name}" for name in METHODS} <= run


def test_both_stages_of_a_sequence_have_the_searched_rates():
    cell = by_name("sft_then_rl-main-seed1")
    given = making.overrides(cell, {"grpo": 1.5e-4, "sft": 1e-3})
    whole = Arguments(config_name="quickstart", overrides=tuple(given))
    stages = [stage.compose("cpu") for _, stage in stage_arguments(whole, whole.compose("cpu"))]
    assert [c.method.name for c in stages] == ["sft", "grpo"]
    assert (stages[0].method.sft.lr, stages[1].actor_rollout_ref.actor.optim.lr) == (1e-3, 1.5e-4)
    assert [c.trainer.total_training_steps for c in stages] == [240, 80]


def test_a_real_model_has_two_seeds_and_enough_questions():
    assert REAL.seeds == (1, 2) and tasks.EVALUATION >= 300 and {s.samples for s in REAL.settings} == {4}


# ---- the search ----


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "out", tmp_path / "records")


def search(place, knob: str, results: tuple[str, ...]) -> None:
    for cell, right in zip([c for c in trials(SMALL) if c.treatment.knobs[-1].name == knob], results, strict=True):
        records.write(place.records, make_record(cell, right, place=place if knob != "grpo" else None))


def test_the_best_trial_is_chosen_and_of_equals_the_smaller(place):
    cell = by_name("own_step.acc0.one-main-seed1")
    with pytest.raises(StudyError, match=r"needs the cell search-grpo-1\.5e-05-main, which is not done"):
        making.chosen(SMALL, cell, place)
    search(place, "grpo", ("1000", "1110", "1110"))
    search(place, "own_step.one", ("1000", "1110", "1000", "1110", "0000"))
    assert making.chosen(SMALL, cell, place) == {"grpo": 5e-5, "own_step.one": 1e-4}
    untuned = dataclasses.replace(place, untuned=True)
    assert making.chosen(SMALL, cell, untuned) == {"grpo": 5e-5, "own_step.one": 3e-4}


def test_a_record_of_other_settings_is_refused_and_an_untuned_one_does_not_count(place):
    cell = by_name("search-grpo-5e-05-main")
    assert not making.is_done(SMALL, cell, place, ())
    records.write(place.records, make_record(cell))
    assert making.is_done(SMALL, cell, place, ())
    records.write(place.records, make_record(cell, untuned=True))
    assert not making.is_done(SMALL, cell, place, ())
    records.write(place.records, make_record(cell, settings={"overrides": []}))
    with pytest.raises(StudyError, match="was made with other settings; remove it, or choose another folder"):
        making.is_done(SMALL, cell, place, ())


def test_cells_of_another_base_model_are_refused(place):
    cell = by_name("grpo-main-seed1")
    search(place, "grpo", ("1000", "1110", "1110"))
    records.write(place.records, make_record(cell, base="of another machine", place=place))
    with pytest.raises(StudyError, match=r"grpo-main-seed1\.json was made from another base model; remove it, or"):
        making.is_done(SMALL, cell, place, ())
    one = trials(SMALL)[0]
    records.write(place.records, make_record(one, "1000", base=""))
    with pytest.raises(StudyError, match=r"search-grpo-1\.5e-05-main, .* start from different base models; remove"):
        making.chosen(SMALL, cell, place)


def test_every_setting_of_the_small_task_has_a_base_model():
    hashes = {setting.base: tasks.base_hash(setting) for setting in SMALL.settings}
    assert len(set(hashes.values())) == len(hashes) == 3
    listed = (tasks.BASES / "README.md").read_text()
    assert all(f"| `{base.name}` |" in listed and value[:12] in listed for base, value in hashes.items())


def test_kept_cells_start_from_the_kept_base_models():
    for study in (SMALL, REAL):
        settings = {setting.name: setting for setting in study.settings}
        for record in records.read_all(records.FOLDER, study.name):
            assert record.base == tasks.base_hash(settings[record.setting]) or (record.tried and not record.base)


# ---- cells ----


def test_right_answers_are_digits_in_the_order_of_the_questions(tmp_path):
    build_tokenizer().save_pretrained(tmp_path / "base")
    asked = ["1+2=?", "3-1+2=?", "1+2=?", "9=?"]
    rows = [
        {"prompt": [{"role": "user", "content": text}], "data_source": f"arithmetic/{level}"}
        for text, level in zip(asked, ("easy", "easy", "hard", "hard"), strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "questions.parquet")
    dumps = tmp_path / "validation"
    dumps.mkdir()
    (dumps / "9.jsonl").write_text("not the last")
    answers = {"9=?": [0, 1], "3-1+2=?": [1, 1], "1+2=?": [1, 0, 1, 0]}
    lines = [{"input": text, "score": float(score)} for text, scores in answers.items() for score in scores]
    (dumps / "80.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = making.right_answers(dumps, tmp_path / "questions.parquet", tmp_path / "base")
    assert found == {"arithmetic/easy": "12", "arithmetic/hard": "11"}
    (dumps / "81.jsonl").write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(StudyError, match="no answer to '1"):
        making.right_answers(dumps, tmp_path / "questions.parquet", tmp_path / "base")


STEP = {"perf/total_num_tokens": 5000, "response_length/mean": 30.0, "prompt_length/mean": 10.0}


@pytest.mark.parametrize(
    ("metrics", "supervised", "trained", "second"),
    [
        ({}, 0, 5000, 0),
        ({"relift/sft_tokens": 600.0, "relift/sft_demonstrations": 16}, 600, 5600, 0),
        ({"method/demonstrations_joined": 3, "method/demonstration_tokens": 90}, 90, 5000, 0),  # among the 5000
        ({"method/demonstration_tokens": 90}, 90, 5090, 0),  # a stream
        ({"relift/sft_tokens": 600.0, "method/second_round_tokens": 70}, 600, 5600, 70),
    ],
)
def test_compute_counts_every_token_once(metrics, supervised, trained, second, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, **STEP, **metrics}) + "\n")
    found = making.total_compute([tmp_path], 10, 128)
    assert (found.sft_tokens, found.generated_tokens) == (supervised, 30 * 128 + second)
    assert found.flops == 10 * (6 * trained + 2 * (30 * 128 + second))


def test_a_record_survives_json_and_questions_are_weighed_by_level(place):
    made = make_record(by_name("own_step.acc0.one-main-seed2"), right="1000")
    records.write(place.records, made)
    assert records.read_all(place.records, "small") == [made]
    assert made.accuracy(records.measures(made.right)["average"]) == 0.25
    uneven = dataclasses.replace(made, right={SOURCES[0]: "4", SOURCES[1]: "00"}, samples=4)
    assert uneven.accuracy(SOURCES[:2]) == 0.5


def test_the_questions_of_the_search_are_apart():
    table = pa.table({"data_source": ["a"] * 5 + ["b"] * 300, "n": list(range(305))})
    first, rest = tasks.divide(table, 100)
    assert len(first) == 101 and first["n"].to_pylist()[0] == 0
    assert set(first["n"].to_pylist()).isdisjoint(rest["n"].to_pylist()) and len(first) + len(rest) == 305


def test_a_matched_cell_spends_what_the_record_says(place, monkeypatch):
    monkeypatch.setattr(tasks, "prepare", lambda *_: None)
    cell = by_name("sequence.operations.own_step.acc0.one-main-seed1")
    untuned = dataclasses.replace(place, untuned=True)
    with pytest.raises(StudyError, match=r"needs the cell own_step\.acc0\.one-main-seed1"):
        making.command(SMALL, cell, untuned)
    matched = by_name("own_step.acc0.one-main-seed1")
    records.write(place.records, make_record(matched, second_round_tokens=50))
    given = making.command(SMALL, cell, untuned)
    folder = next(one for one in given if one.startswith("method.first.match=")).partition("=")[2]
    assert "method.first.by=operations" in given
    assert (spent(Path(folder)).demonstrations, spent(Path(folder)).operations) == (176, 6 * 100 + 2 * 50)
    records.write(place.records, make_record(matched, demonstrations=0))
    with pytest.raises(StudyError, match="trained on no demonstration, so there is nothing to match"):
        making.command(SMALL, cell, untuned)


# ---- the command ----


def options(**given) -> Namespace:
    return Namespace(**{"block": [], "cell": [], "seeds": [], "untuned": False, **given})


def test_a_cell_is_planned_with_what_it_needs():
    names = [c.name for c in evidence.plan(SMALL, options(cell=["in_mean.always.shaped-main-seed3"]))]
    assert len(names) == 9 and names[-1] == "in_mean.always.shaped-main-seed3"
    alone = evidence.plan(SMALL, options(cell=["in_mean.always.shaped-main-seed3"], untuned=True))
    assert [c.name for c in alone] == names[-1:]


@pytest.mark.parametrize("given", [{"cell": ["nothing-main-seed1"]}, {"block": ["nothing"]}])
def test_what_is_not_there_is_refused(given):
    with pytest.raises(StudyError, match="nothing"):
        evidence.plan(SMALL, options(**given))


def test_an_interrupted_study_continues(place, monkeypatch):
    started = []

    def command(study, cell, _):
        started.append(cell.name)
        place.run(cell.name).mkdir(parents=True)
        return ["json.tool", "--help"]

    monkeypatch.setattr(making, "command", command)
    monkeypatch.setattr(making, "record", lambda study, cell, place, seconds: make_record(cell, place=place))
    planned = evidence.plan(SMALL, options(cell=["own_step.acc0.one-main-seed1"]))
    records.write(place.records, make_record(planned[0]))
    place.run(planned[1].name).mkdir(parents=True)  # begun and killed
    assert evidence.run(SMALL, planned, place, 2) == []
    assert started == [cell.name for cell in planned[1:]]
    assert evidence.run(SMALL, planned, place, 2) == [] and len(started) == len(planned) - 1
    assert len(records.read_all(place.records, "small")) == len(planned)
    assert "9 of 9 cells are done" in evidence.listing(SMALL, planned, place.records)


@pytest.mark.parametrize(("now", "status"), [("1010" * 50, 0), ("1000" * 50, 1)])
def test_a_repeated_cell_is_compared_with_its_record(now, status, place, tmp_path, monkeypatch, capsys):
    kept, name = tmp_path / "kept", "grpo-main-seed1"
    monkeypatch.setattr(making, "command", lambda *_: ["json.tool", "--help"])
    monkeypatch.setattr(making, "record", lambda study, cell, place, seconds: make_record(cell, now, place=place))
    with pytest.raises(StudyError, match=f"no record of {name} to compare with"):
        again.repeat(SMALL, [name], kept, place, 1)
    for cell in [c for c in trials(SMALL) if c.treatment.name == "grpo"] + [by_name(name)]:
        records.write(kept, make_record(cell, "1010" * 50))
    stored = records.read(records.path_of(kept, "small", name))
    chosen = {"grpo": 1.5e-5}  # all trials are equal
    records.write(kept, dataclasses.replace(stored, chosen=chosen, settings=making.settings(by_name(name), chosen)))
    assert again.repeat(SMALL, [], kept, place, 1) == status
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith("agrees" if status == 0 else "DISAGREES") and name in said
