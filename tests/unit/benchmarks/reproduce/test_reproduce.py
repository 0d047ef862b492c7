"""Tests the reproduction study: its plan, continuing, statistics, claims, and the comparison with the kept record."""

import dataclasses
import json
import math
from statistics import fmean, stdev

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from benchmarks.cells import ready
from benchmarks.reproduce import __main__ as reproduce
from benchmarks.reproduce import agreement, cell, overview, records, report, task
from benchmarks.reproduce import run as running
from benchmarks.reproduce.claims import Claim, Verdict, demonstration_share, evaluate_claims
from benchmarks.reproduce.estimates import difference, spread, summarize, t_quantile
from benchmarks.reproduce.records import Compute, Point, Record, of_method
from benchmarks.reproduce.study import (
    BATCH,
    MAIN,
    REDUCED_METHODS,
    STUDIES,
    Cell,
    Kind,
    Pool,
    Study,
    StudyError,
    Task,
    needs,
    plan,
    predecessor,
)
from verl_relift.rewards import grade
from verl_relift.run.composition import compose_config

LEVELS = ("easy", "medium", "hard", "hardest", "ood_long", "ood_two", "ood_mix")


def make_record(
    method: str, accuracy: float, base: str = "a", seed: int = 1, used: int = 0, study: Study = MAIN
) -> Record:
    """Return a record with the same accuracy on every level."""
    levels = dict.fromkeys(LEVELS, accuracy)
    chosen = Cell(study.method(method), next(b for b in study.bases if b.name == base), seed)
    return Record(
        cell=chosen.name,
        study=study.name,
        method=method,
        base=base,
        seed=seed,
        settings=cell.settings(study, chosen),
        levels=levels,
        questions=dict.fromkeys(LEVELS, 200),
        curve=tuple(Point(step, 1e9 * step, levels) for step in (20, 40, 60, 80)),
        compute=Compute(80, 11, 1000, 100, 500, 1000, 8e10),
        demonstrations_used=used,
        demonstrations_available=1280,
        seconds=100.0,
        date="2026-11-23",
        machine="2 cores, load 0.0",
        versions={"python": "3.11"},
    )


def many(method: str, accuracies: dict[str, list[float]]) -> list[Record]:
    """Return the records of a method from the accuracies of its seeds by base."""
    return [make_record(method, a, base, seed) for base, found in accuracies.items() for seed, a in enumerate(found, 1)]


# ---- the plan ----


def test_the_whole_study_has_every_method_base_and_seed_once():
    cells = plan(MAIN)
    names = [c.name for c in cells]
    trained = [m for m in MAIN.methods if m.kind is not Kind.EVALUATE]
    expected = len(MAIN.bases) * (1 + len(trained) * len(MAIN.seeds)) + len(MAIN.variants) * len(MAIN.seeds)
    assert len(set(names)) == len(names) == expected
    assert len(MAIN.seeds) >= 3 and len(MAIN.bases) >= 2


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_cell_comes_after_the_one_it_needs(study):
    names = [c.name for c in plan(study)]
    for c in plan(study):
        if c.method.after:
            assert names.index(predecessor(c)) < names.index(c.name)


def test_one_seed_is_finished_before_the_next():
    seeds = [c.seed for c in plan(MAIN)]
    assert seeds == sorted(seeds)


def test_only_adds_the_methods_that_a_method_needs():
    cells = plan(MAIN, only=["sft_then_rl"], seeds=[2])
    assert [c.name for c in cells] == [
        "sft-a-seed2", "sft-b-seed2", "sft_then_rl-a-seed2", "sft_then_rl-b-seed2"
    ]  # fmt: skip


def test_needed_methods_may_need_others():
    names = [c.name for c in plan(STUDIES["scarce"], only=["sft_few_then_rl"], seeds=[2])]
    assert names == ["relift-c-seed2", "sft_few-c-seed2", "sft_few_then_rl-c-seed2"]


@pytest.mark.parametrize("arguments", [{"only": ["dpo"]}, {"seeds": [99]}])
def test_a_method_or_seed_outside_of_the_study_is_rejected(arguments):
    with pytest.raises(StudyError, match="study main has no"):
        plan(MAIN, **arguments)


def test_ready_waits_for_the_predecessor():
    todo = plan(MAIN, only=["sft_then_rl"], seeds=[1])[2:]
    assert ready(todo, set(), needs) is None
    assert ready(todo, {"sft-b-seed1"}, needs).name == "sft_then_rl-b-seed1"


def test_the_reduced_study_is_part_of_the_whole():
    assert {c.name for c in plan(reproduce.reduced(MAIN))} < {c.name for c in plan(MAIN)}
    for c in plan(reproduce.reduced(MAIN)):
        assert cell.settings(reproduce.reduced(MAIN), c) == cell.settings(MAIN, c)


def composed(*overrides: str):
    return compose_config("quickstart", None, [*cell.ONE_WORKER, *cell.GREEDY_VALIDATION, *overrides], "cpu")


def test_every_setting_of_every_method_exists():
    config = composed()
    assert config.data.train_batch_size == BATCH and config.data.max_response_length == cell.MAX_TOKENS
    for method in (m for study in STUDIES.values() for m in (*study.methods, *study.variants) if m.overrides):
        config = composed(*method.overrides)
        for key, value in (override.split("=") for override in method.overrides):
            assert str(OmegaConf.select(config, "method.name" if key == "method" else key)) == value


def test_supervised_methods_make_passes_in_batches_of_the_same_size():
    sft = [m for m in MAIN.methods if m.kind is Kind.SFT]
    assert {m.overrides for m in sft} == {("method=sft",)} and all(m.passes for m in sft)
    config = composed("method=sft")
    assert config.method.sft.batch_size == BATCH and config.method.sft.lr == composed().method.sft.lr


# ---- the task ----


def test_the_questions_are_apart_and_a_share_is_demonstrated(tmp_path):
    task.make_data(Task(train_size=200, eval_size=20, demonstrated=0.25), tmp_path)
    train, test = (pq.read_table(tmp_path / name).to_pylist() for name in (task.TRAIN, task.TEST))
    asked = [{row["prompt"][0]["content"] for row in rows} for rows in (train, test)]
    assert not asked[0] & asked[1]
    assert sum(row["target"] is not None for row in train) == 50


def test_demonstrations_of_some_levels(tmp_path):
    task.make_data(Task(train_size=200, eval_size=20, demonstrated=0.5, demonstrated_levels=("hardest",)), tmp_path)
    train = pq.read_table(tmp_path / task.TRAIN).to_pylist()
    shown = [row["extra_info"]["level"] for row in train if row["target"] is not None]
    assert shown == ["hardest"] * 30


def test_a_share_of_the_solutions_is_terse_and_still_right(tmp_path):
    task.make_data(Task(train_size=200, eval_size=20, terse=0.25), tmp_path)
    for name, count in ((task.TRAIN, 50), (task.PRETRAIN, 3600)):
        rows = pq.read_table(tmp_path / name).to_pylist()
        terse = [row for row in rows if row["target"][0]["content"].startswith("<think></think>")]
        assert len(terse) == count
        assert all(grade(row["target"][0]["content"], row["reward_model"]["ground_truth"]).correct for row in terse)


def test_extra_levels_are_evaluated_and_leave_the_other_questions_as_they_are(tmp_path):
    for name, levels in (("without", ()), ("with", ("ood_short", "ood_chain"))):
        task.make_data(Task(train_size=200, eval_size=20, extra_levels=levels), tmp_path / name)
    for name in (task.TRAIN, task.PRETRAIN):
        assert pq.read_table(tmp_path / "with" / name).equals(pq.read_table(tmp_path / "without" / name))
    long, short = (pq.read_table(tmp_path / name / task.TEST).to_pylist() for name in ("with", "without"))
    assert long[: len(short)] == short
    assert [row["extra_info"]["level"] for row in long[len(short) :]] == ["ood_short"] * 20 + ["ood_chain"] * 20


def test_the_average_out_of_distribution_uses_the_levels_of_the_record():
    levels = {"ood_mix": 0.1, "easy": 1.0, "ood_short": 0.6, "ood_long": 0.2}
    assert records.ood_levels(levels) == ["ood_long", "ood_mix", "ood_short"]
    assert records.measure(levels, records.OOD_AVERAGE) == pytest.approx(0.3)


def test_demonstrations_are_chosen_from_the_pool(tmp_path):
    task.make_data(Task(train_size=200, eval_size=20, demonstrated=0.5), tmp_path)
    train = pq.read_table(tmp_path / task.TRAIN)
    assert len(task.choose(train, Pool.ALL, 0, seed=1)) == 100
    hardest = task.choose(train, Pool.SAME_NUMBER_HARDEST, 16, seed=1).to_pylist()
    assert len(hardest) == 16 and {row["extra_info"]["level"] for row in hardest} == {"hardest"}
    levels = {row["extra_info"]["level"] for row in task.choose(train, Pool.SAME_NUMBER, 48, seed=1).to_pylist()}
    assert levels == {"easy", "medium", "hard", "hardest"}
    assert task.choose(train, Pool.SAME_NUMBER, 48, 1) != task.choose(train, Pool.SAME_NUMBER, 48, 2)
    assert len(task.choose(train, Pool.SAME_NUMBER, 101, seed=1)) == 100
    with pytest.raises(ValueError, match="cannot draw 0 demonstrations"):
        task.choose(train, Pool.SAME_NUMBER, 0, seed=1)


# ---- cells and resuming ----

RL_STEP = {
    "perf/total_num_tokens": 5000,
    "response_length/mean": 30.0,
    "prompt_length/mean": 10.0,
    "timing_s/old_log_prob": 0.5,
}


def test_compute_counts_every_token_once():
    steps = [{"step": 1, **RL_STEP}, {"step": 2, **RL_STEP, "relift/sft_tokens": 600.0, "relift/sft_updates": 1.0}]
    found = cell.compute(steps, parameters=10)
    assert found == Compute(2, 1, 10_000, 600, 7500, 10_000, 10 * (6 * 10_600 + 2 * 17_500))
    assert cell.compute(steps, 10, earlier=found).flops == 2 * found.flops


def test_the_curve_has_the_validations_and_begins_where_the_first_stage_ended():
    validation = {f"val-core/arithmetic/{level}/acc/mean@1": 0.5 for level in LEVELS}
    steps = [{"step": 1, **RL_STEP}, {"step": 2, **RL_STEP, **validation, "val-aux/arithmetic/easy/reward/mean@1": 1}]
    (point,) = cell.learning_curve(steps, parameters=1, offset=7.0)
    assert point == Point(2, 7.0 + cell.compute(steps, 1).flops, dict.fromkeys(LEVELS, 0.5))


def test_a_record_survives_json():
    made = make_record("relift", 0.1 + 0.2, used=176)
    assert records.from_json(records.to_json(made)) == made


def test_cells_with_a_record_are_done_and_others_are_not(tmp_path):
    folders = cell.Folders(tmp_path)
    made = make_record("relift", 0.5)
    records.write(folders.record(made.cell), [made])
    folders.record("rl-a-seed1").with_suffix(".json.tmp").write_text("{")  # what a kill may leave
    cells = plan(MAIN, only=["relift", "rl"], seeds=[1])
    assert running.done(MAIN, cells, folders) == {"relift-a-seed1": made}


def test_a_record_of_other_settings_is_refused(tmp_path):
    folders = cell.Folders(tmp_path)
    made = make_record("relift", 0.5)
    records.write(folders.record(made.cell), [made])
    shorter = dataclasses.replace(MAIN, steps=10)
    with pytest.raises(StudyError, match="relift-a-seed1"):
        running.done(shorter, plan(shorter), folders)


def test_weights_that_are_gone_are_named(tmp_path):
    chosen = Cell(MAIN.method("sft_then_rl"), MAIN.bases[0], 1)
    with pytest.raises(StudyError, match="sft-a-seed1 has no weights"):
        cell.command(MAIN, chosen, cell.Folders(tmp_path), make_record("sft", 0.5))


def test_the_command_of_the_second_stage_starts_from_the_first_ones_weights(tmp_path):
    folders = cell.Folders(tmp_path)
    weights = folders.run("sft-a-seed1") / "global_step_240" / "actor" / "model" / "huggingface"
    weights.mkdir(parents=True)
    chosen = Cell(MAIN.method("sft_then_rl"), MAIN.bases[0], 1)
    arguments = cell.command(MAIN, chosen, folders, make_record("sft", 0.5))
    assert f"actor_rollout_ref.model.path={weights}" in arguments
    assert {"method=grpo", "data.seed=1", "trainer.save_freq=-1", "trainer.test_freq=20"} <= set(arguments)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Make the study's cells small programs; return folders, the starts, and the names of cells to fail."""
    started, failing = [], set()

    def command(study, chosen, folders, before):
        started.append((chosen.name, before.cell if before else None))
        folders.run(chosen.name).mkdir(parents=True)
        return ["this", *([] if chosen.name in failing else ["json.tool", "--help"])][1:] or ["no_such_module"]

    def record(study, chosen, folders, before, seconds):
        return make_record(chosen.method.name, 0.5, chosen.base.name, chosen.seed)

    monkeypatch.setattr(running, "prepare", lambda *_: None)
    monkeypatch.setattr(cell, "command", command)
    monkeypatch.setattr(cell, "record", record)
    return cell.Folders(tmp_path), started, failing


def test_a_study_continues_after_an_interruption(fake):
    folders, started, _ = fake
    cells = plan(MAIN, only=["sft_then_rl"], seeds=[1])
    records.write(folders.record("sft-a-seed1"), [make_record("sft", 0.5)])
    folders.run("sft_then_rl-a-seed1").mkdir(parents=True)  # begun and killed
    assert running.run(MAIN, cells, folders, 2, lambda _: None) == []
    assert sorted(started) == [
        ("sft-b-seed1", None),
        ("sft_then_rl-a-seed1", "sft-a-seed1"),
        ("sft_then_rl-b-seed1", "sft-b-seed1"),
    ]
    assert running.run(MAIN, cells, folders, 2, lambda _: None) == [] and len(started) == 3


def test_a_failed_cell_and_those_that_need_it_are_named_and_tried_again(fake):
    folders, started, failing = fake
    cells = plan(MAIN, only=["sft_then_rl"], seeds=[1])
    failing.add("sft-a-seed1")
    assert running.run(MAIN, cells, folders, 1, lambda _: None) == ["sft-a-seed1", "sft_then_rl-a-seed1"]
    assert {name for name, _ in started} == {"sft-a-seed1", "sft-b-seed1", "sft_then_rl-b-seed1"}
    failing.clear()
    assert running.run(MAIN, cells, folders, 1, lambda _: None) == []


# ---- statistics ----


def test_mean_and_deviation():
    assert summarize([1.0, 2.0, 4.0]).deviation == pytest.approx(stdev([1, 2, 4]))
    assert summarize([1.0]).deviation is None


def test_the_spread_is_within_groups():
    found = spread([[1.0, 3.0], [101.0, 103.0], [7.0]])
    assert (found.deviation, found.freedom) == (pytest.approx(math.sqrt(2)), 2)
    assert spread([[1.0], [2.0]]).deviation is None


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.95, 7, 1.8946), (0.975, 8, 2.3060), (0.995, 15, 2.9467)],
)
def test_quantiles_of_students_t_are_the_tables(probability, freedom, expected):
    assert t_quantile(probability, freedom) == pytest.approx(expected, abs=1e-4)


def test_a_difference_of_two_methods_on_one_base_is_the_two_sample_t_interval():
    ours, theirs = [0.5, 0.6, 0.7], [0.4, 0.4, 0.55]
    found = difference(many("relift", {"a": ours}), many("rl", {"a": theirs}), lambda r: r.levels["hard"])
    pooled = math.sqrt((stdev(ours) ** 2 + stdev(theirs) ** 2) / 2)
    assert found.value == pytest.approx(fmean(ours) - fmean(theirs))
    assert found.half_width == pytest.approx(2.7764 * pooled * math.sqrt(2 / 3), rel=1e-4)


def test_the_distance_of_bases_is_not_chance():
    near = difference(
        many("relift", {"a": [0.50, 0.52], "b": [0.50, 0.52]}),
        many("rl", {"a": [0.40, 0.42], "b": [0.40, 0.42]}),
        lambda r: r.levels["hard"],
    )
    far = difference(
        many("relift", {"a": [0.50, 0.52], "b": [0.90, 0.92]}),
        many("rl", {"a": [0.40, 0.42], "b": [0.80, 0.82]}),
        lambda r: r.levels["hard"],
    )
    assert far.half_width == pytest.approx(near.half_width) and far.value == pytest.approx(near.value)


# ---- claims ----

CLAIM = Claim("relift", "rl", "average", "")


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        ([0.50, 0.51, 0.49], Verdict.HOLDS),
        ([0.90, 0.91, 0.89], Verdict.CONTRADICTED),
        ([0.69, 0.71, 0.70], Verdict.UNDECIDED),
    ],
)
def test_a_verdict_follows_from_the_cells(theirs, verdict):
    cells = many("relift", {"a": [0.70, 0.71, 0.69]}) + many("rl", {"a": theirs})
    (tested,) = evaluate_claims(cells, [CLAIM])
    assert tested.verdict is verdict


def test_one_cell_a_side_decides_nothing():
    (tested,) = evaluate_claims(many("relift", {"a": [0.9]}) + many("rl", {"a": [0.1]}), [CLAIM])
    assert tested.verdict is Verdict.UNDECIDED


def test_a_method_with_one_seed_decides_nothing_whatever_the_others_spread():
    ours = many("relift", {"a": [0.70, 0.71, 0.69], "b": [0.70, 0.71, 0.69]})
    (tested,) = evaluate_claims(ours + many("rl", {"a": [0.1], "b": [0.1]}), [CLAIM])
    assert tested.verdict is Verdict.UNDECIDED
    assert tested.difference.value == pytest.approx(0.6)


def test_the_base_model_needs_one_cell():
    cells = many("relift", {"a": [0.70, 0.71, 0.69]}) + many("base", {"a": [0.1]})
    (tested,) = evaluate_claims(cells, [Claim("relift", "base", "average", "")])
    assert tested.verdict is Verdict.HOLDS


def test_a_claim_without_cells_is_left_out():
    assert evaluate_claims(many("relift", {"a": [0.9]}) + many("rl", {"b": [0.1]}), [CLAIM]) == []


def test_the_share_of_demonstrations():
    cells = [make_record("relift", 0.5, used=128), make_record("relift", 0.5, seed=2, used=256)]
    assert demonstration_share(cells, "relift") == pytest.approx(0.15)
    assert demonstration_share(cells, "rl") is None


# ---- agreement with the record ----

RECORDED = many("relift", {"a": [0.80, 0.82, 0.81], "b": [0.60, 0.62, 0.61]})


def test_a_repetition_near_the_record_agrees():
    rows = agreement.compare(many("relift", {"a": [0.83]}), RECORDED)
    assert [row.measure for row in rows] == list(agreement.COMPARED)
    assert all(row.agrees and row.recorded == pytest.approx(0.81) and row.cells == (1, 3) for row in rows)


def test_a_repetition_that_learned_nothing_disagrees():
    rows = agreement.compare(many("relift", {"a": [0.50]}), RECORDED)
    assert not any(row.agrees for row in rows)
    assert agreement.table(rows).count("DISAGREES") == len(rows)


def test_levels_where_all_cells_are_equal_keep_the_sampling_error_of_their_questions():
    recorded = many("relift", {"a": [1.0, 1.0, 1.0]})
    (row, *_) = agreement.compare(many("relift", {"a": [0.995]}), recorded)
    assert row.agrees and 0 < row.tolerance < 0.2


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ([], "no cells of relift"),
        (many("relift", {"b": [0.5, 0.6]}), "no cells of relift"),
        (many("relift", {"a": [0.5]}), "one seed"),
        ([dataclasses.replace(r, settings=r.settings | {"steps": 7}) for r in RECORDED], "other settings"),
    ],
)
def test_a_record_that_cannot_judge_is_refused(recorded, message):
    with pytest.raises(StudyError, match=message):
        agreement.compare(many("relift", {"a": [0.8]}), recorded)


@pytest.mark.parametrize(("recorded", "status"), [(0.5, 0), (0.9, 1), (None, 2)])
def test_the_status_of_the_reduced_command_is_the_outcome(fake, monkeypatch, tmp_path, capsys, recorded, status):
    """The repeated cells have an accuracy of 0.5 on every level."""
    if recorded is not None:
        accuracies = {base.name: [recorded - 0.01, recorded, recorded + 0.01] for base in MAIN.bases}
        kept = [record for method in REDUCED_METHODS for record in many(method, accuracies)]
        records.write(tmp_path / "kept" / "main.jsonl", kept)
    arguments = ["--output", str(tmp_path), "--reduced", "--record", str(tmp_path / "kept")]
    monkeypatch.setattr("sys.argv", ["reproduce", *arguments])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert reproduce.main() == status
    output = capsys.readouterr()
    assert output.out.count("DISAGREES") == (len(REDUCED_METHODS) * len(agreement.COMPARED) if status == 1 else 0)
    assert ("no record to compare with" in output.err) == (status == 2)


# ---- the report ----


def test_the_report_is_made_from_the_records_alone(tmp_path):
    cells = [make_record("base", 0.4, base) for base in ("a", "b")]
    for place, method in enumerate(("relift", "rl", "sft", "relift_m8")):
        bases = ("a",) if method == "relift_m8" else ("a", "b")
        cells += many(method, {base: [0.5 + place / 10 + seed / 100 for seed in range(3)] for base in bases})
    report.write(MAIN, cells, tmp_path)
    text = (tmp_path / "main.md").read_text()
    assert "| ReLIFT | 6 | 51.0 ± 0.9 |" in text
    assert "| ReLIFT > RL (GRPO) | average | -10.0 ±" in text and "**contradicted**" in text
    assert "| 8 | 3 |" in text and "## Ablations" in text
    kept = records.read(tmp_path / "main.jsonl")
    assert sorted(r.cell for r in kept) == sorted(r.cell for r in cells)
    assert of_method(kept, "rl") == of_method(cells, "rl")
    for image in tmp_path.glob("*.png"):
        assert 0 < image.stat().st_size <= 200_000


def test_the_overview_has_a_row_per_study_and_only_its_own_cells():
    scarce = STUDIES["scarce"]
    cells = {
        "scarce": [
            make_record(m, a, "c", seed, study=scarce) for m, a in (("relift", 0.8), ("sft", 0.5)) for seed in (1, 2)
        ],
        "main": many("relift", {"a": [0.70, 0.72]}) + many("rl", {"a": [0.70, 0.72]}),
    }
    text = overview.render(cells)
    average = text.split("## average")[1].split("##")[0].splitlines()
    assert "| main |  | 71.0 ± 1.4 |  |  |  | 71.0 ± 1.4 | +0.0 ± 6.1, undecided |  |  |  |" in average
    assert "| scarce |  |  | 50.0 ± 0.0 |  |  | 80.0 ± 0.0 |  | +30.0 ± 0.0, holds |  |  |" in average
    assert "| scarce | c (400 steps) | 25% of the questions | 160 | 10 | 4 |" in text


def test_the_kept_overview_is_that_of_the_kept_records():
    files = [report.RECORD / f"{study}.jsonl" for study in STUDIES]
    cells = {file.stem: records.read(file) for file in files if file.exists()}
    assert (report.RECORD / overview.OUTPUT).read_text() == overview.render(cells)


@pytest.mark.parametrize(
    ("recorded", "today"),
    [
        ("recipe=relift", "method=relift"),
        ("relift.schedule.kind=every_k", "method.schedule.kind=every_k"),
        ("relift.sft.batch_size=8", "method.sft.batch_size=8"),
        ("relift.rollout.seeded=false", "relift.rollout.seeded=false"),
        ("method.trigger.select=other", "method.trigger.select=other"),
        ("data.seed=1", "data.seed=1"),
    ],
)
def test_settings_of_a_record_get_their_names_of_today(recorded, today):
    assert records.current_name(recorded) == today


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_kept_records_were_made_with_the_settings_of_the_study(study):
    cells = {c.name: c for c in plan(study)}
    for made in records.read(report.RECORD / f"{study.name}.jsonl"):
        assert made.settings == cell.settings(study, cells[made.cell]), made.cell


def test_kept_records_can_be_read_and_belong_to_the_study():
    for path in report.RECORD.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            assert json.loads(line)["study"] == path.stem
        for made in records.read(path):
            assert STUDIES[made.study].method(made.method).name == made.method
