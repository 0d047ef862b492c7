"""Tests the page made from runs on disk: what is read, drawn, escaped and rejected."""

import json
import math
import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from verl_relift.report.__main__ import main
from verl_relift.report.charts import PANELS, figure_panels, validation_average, validation_charts
from verl_relift.report.runs import Series, read_run
from verl_relift.report.samples import from_validation
from verl_relift.report.tables import flatten, settings_table, time_table, totals
from verl_relift.report.thin import thin
from verl_relift.report.timing import STAGES, stage_seconds, stage_series

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}</pre>\u202e"


def write_run(folder, lines, config="method: {name: relift, sft: {batch_size: 16}}\n"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if config is not None:
        (folder / "config.yaml").write_text(config)
    return folder


def write_log(folder):
    (folder / "logs").mkdir()
    (folder / "logs/train.log").touch()


def write_validation(run, step, rows):
    (run / "validation").mkdir(exist_ok=True)
    text = "".join(json.dumps({"step": step, **row}) + "\n" for row in rows)
    (run / "validation" / f"{step}.jsonl").write_text(text)


def steps(count, **metrics):
    return [{"step": i, "time": 10.0 * i, **{k: f(i) for k, f in metrics.items()}} for i in range(1, count + 1)]


def rewards(count=5):
    return steps(count, **{"critic/score/mean": lambda i: i / count})


def report(*arguments):
    main([str(argument) for argument in arguments])


def test_lines_of_a_step_are_merged_and_gaps_stay_gaps(tmp_path):
    lines = [
        {"step": 0, "time": 1, "val": 0.1},
        {"step": 2, "time": 2, "a": 1},
        {"step": 2, "time": 3, "val": 0.3, "a": 2},
    ]
    run = read_run(write_run(tmp_path, [*lines, {"step": 3, "time": 9, "a": None, "text": "x", "flag": True}]))
    assert run.series["val"].steps.tolist() == [0, 2]
    assert run.series["a"].values[0] == 2 and math.isnan(run.series["a"].values[1])
    assert run.series.keys() == {"val", "a"} and (run.first_time, run.last_time) == (1, 9)
    assert run.problems == ["a: 1 value is not finite, first at step 3; the curve has a gap there."]


def test_bare_nan_and_torn_lines_are_reported_and_not_counted(tmp_path):
    write_run(tmp_path, rewards(2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "time": 1, "critic/score/mean": NaN, "x": Infinity}\n{"step": 4, "cri')
    run = read_run(tmp_path)
    assert np.isfinite(run.series["critic/score/mean"].values).tolist() == [True, True, False]
    assert any("1 unreadable lines" in problem for problem in run.problems)
    assert any(problem.startswith("x: 1 value is not finite") for problem in run.problems)
    report(tmp_path, "--output", tmp_path / "report.html")
    assert "not finite, first at step 3" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "no metrics.jsonl"),
        (lambda folder: write_log(folder), "this run has made no step; "),
        (lambda folder: write_run(folder, []), "no readable metrics"),
        (lambda folder: write_run(folder, [{"step": 1, "time": 1}]), "no readable metrics"),
    ],
)
def test_a_folder_without_metrics_ends_with_one_line(tmp_path, capsys, prepare, message):
    prepare(tmp_path)
    with pytest.raises(SystemExit) as ended:
        report(tmp_path, "--output", tmp_path / "report.html")
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_two_runs_need_two_names(tmp_path, capsys):
    one, two = write_run(tmp_path / "a" / "run", rewards()), write_run(tmp_path / "b" / "run", rewards())
    with pytest.raises(SystemExit):
        report(one, two, "--output", tmp_path / "report.html")
    assert "two runs are named run" in capsys.readouterr().err
    report(f"RL={one}", f"ReLIFT={two}", "--output", tmp_path / "report.html")
    assert "RL and ReLIFT" in (tmp_path / "report.html").read_text()


class Page(HTMLParser):
    """Collects the tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", ["notes.md", "folder.html", "none"])
def test_a_page_does_not_take_the_place_of_another_file(tmp_path, capsys, name):
    run = write_run(tmp_path / "run", rewards(), "relift: {}\n")
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(SystemExit) as ended:
        report(run, "--output", tmp_path / name)
    assert ended.value.code == 2 and "the page is a file whose name ends with .html" in capsys.readouterr().err
    assert (tmp_path / "notes.md").read_text() == "mine" and not list(tmp_path.glob("*.tmp"))


def test_hostile_text_from_everywhere_stays_text(tmp_path):
    run = write_run(
        tmp_path / "run", [*rewards(), {"step": 5, "time": 1, HOSTILE: 1.0}], f"relift: {{x: '{HOSTILE}'}}\n"
    )
    for step, right in ((0, 0.0), (5, 1.0)):
        text = f"{HOSTILE}\x1b[2J\u202egnp"
        row = {"input": HOSTILE, "output": text, "gts": HOSTILE, "score": right, "outcome": HOSTILE}
        write_validation(run, step, [row])
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    number = {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}
    settings = {"temperature": 0.6, "max_tokens": 9, "seed": HOSTILE}
    summary = {"sources": {HOSTILE: number}, "average": number, "settings": settings}
    (evaluation / "summary.json").write_text(json.dumps(summary))
    output = tmp_path / "report.html"
    report(f"{HOSTILE.replace('=', '')}={run}", "--output", output, "--evaluation", evaluation, "--title", HOSTILE)
    page = Page(output.read_text())
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "link2", "form"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") >= 6, "shown as text"
    assert "{{ 7*7 }}" in page.text
    assert r"\x1b[2J\u202egnp" in page.text and not {"\x1b", "\u202e"} & set(page.text)
    addresses = [value for _, a in page.tags for name, value in a.items() if name in ("src", "href")]
    assert addresses and all(value.startswith("data:") for value in addresses)


def test_the_page_shows_no_secret(tmp_path):
    config = (
        "teacher: {api_key: sk-123, base_url: 'https://me:pa55@host'}\nhub: {hf_token: hf-9}\ndata: {max_tokens: 77}\n"
        "ray_kwargs: {runtime_env: {env_vars: {DB: pg-7}}}\n"
    )
    run = write_run(tmp_path, rewards(), config)
    report(run, "--output", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert not any(secret in text for secret in ("sk-123", "pa55", "hf-9", "pg-7")) and "teacher.api_key" in text
    assert flatten({"data": {"max_tokens": 77}}) == {"data.max_tokens": "77"}


def test_supervised_updates_are_where_the_count_grew(tmp_path):
    counts = [0, 0, 1, 1, None, 2, 2]
    lines = [{"step": i, "time": i, "relift/sft_updates": count} for i, count in enumerate(counts, 1)]
    assert read_run(write_run(tmp_path, lines)).sft_update_steps().tolist() == [3, 6]


def test_the_validation_average_needs_every_source(tmp_path):
    lines = [
        {"step": 0, "time": 0, "val-core/a/acc/mean@1": 0.2, "val-core/b/c/acc/mean@1": 0.4},
        {"step": 1, "time": 0, "val-core/a/acc/mean@1": 0.9},
        {"step": 2, "time": 0, "val-core/a/acc/mean@1": 0.6, "val-core/b/c/acc/mean@1": 0.8, "val-aux/a/x/mean@1": 5},
    ]
    average = validation_average(read_run(write_run(tmp_path, lines)))
    assert average.steps.tolist() == [0, 2] and average.values.tolist() == pytest.approx([0.3, 0.7])


def test_validation_rewards_are_drawn_where_they_are_not_the_accuracy(tmp_path):
    def run(name, reward):
        lines = [
            {"step": i, "time": i, "val-core/a b/acc/mean@1": i / 9, "val-aux/a b/reward/mean@1": reward(i)}
            for i in (1, 2, 3)
        ]
        return read_run(write_run(tmp_path / name, lines))

    same, other = run("same", lambda i: i / 9), run("other", lambda i: 2.0 * i)
    assert [chart.title for chart in validation_charts([same])] == ["Validation accuracy"]
    titles = ["Validation accuracy", "Validation reward, a b"]
    assert [chart.title for chart in validation_charts([other])] == titles
    assert validation_charts([same, other])[-1].alternative.endswith("other: from 2 to 6")


def test_settings_that_differ_have_one_row_for_each_value_that_was_typed(tmp_path):
    def run(name, rate):
        folder = tmp_path / name
        config = f"a: {{lr: {rate}, same: 1}}\nb: {{lr: {rate}}}\nseed: {len(name)}\n"
        places = f"trainer: {{default_local_dir: {folder}, validation_data_dir: {folder}/validation}}\n"
        return read_run(write_run(folder, rewards(), config + places))

    table = settings_table([run("one", 0.1), run("second", 0.2)])
    assert table.rows == [["a.lr, b.lr", "0.1", "0.2"], ["seed", "3", "6"]]


def test_the_stages_of_a_step_are_counted_once(tmp_path):
    """Every timer has its own stage, stages and `other` add up to the step, and outside of steps count separately."""
    timers = {name: 0.25 * place for place, name in enumerate(STAGES, 1)}
    lines = steps(4, **{name: lambda i, s=s: s for name, s in timers.items()}, **{"timing_s/step": lambda i: 14.0})
    lines[0] |= {"timing_s/startup": 30.0}
    lines += [{"step": 4, "time": 50.0, "timing_s/testing": 5.0}]
    run = read_run(write_run(tmp_path, lines))
    seconds = stage_seconds(run)
    assert seconds.pop("startup") == 30.0 and seconds.pop("validation") == 5.0
    assert sum(seconds.values()) == pytest.approx(4 * 14.0)
    assert seconds["RL update"] == 4 * timers["timing_s/update_actor"]
    assert seconds["supervised update"] == 4 * timers["timing_s/update_actor_sft"]
    assert seconds["other"] == pytest.approx(4 * (14.0 - sum(timers.values())))
    layers = np.sum([series.values for series in stage_series(run).values()], axis=0)
    assert layers == pytest.approx([14.0] * 4)
    shares = [int(row[1].split("(")[1].rstrip("%)")) for row in time_table([run]).rows]
    assert sum(shares) == pytest.approx(100, abs=len(shares) / 2)


def test_a_stage_that_some_steps_lack_is_drawn_where_it_ran(tmp_path):
    lines = steps(4, **{"timing_s/gen": lambda i: 2.0, "timing_s/step": lambda i: 4.0})
    lines[1] |= {"timing_s/update_actor_sft": 1.0}
    stages = stage_series(read_run(write_run(tmp_path, lines)))
    assert stages["supervised update"].values.tolist() == [0, 1, 0, 0]
    assert stages["other"].values.tolist() == [2, 1, 2, 2]
    assert stage_seconds(read_run(tmp_path)) == {"generation": 8.0, "supervised update": 1.0, "other": 7.0}


def test_a_run_without_step_times_has_no_stages(tmp_path):
    run = read_run(write_run(tmp_path, rewards()))
    assert stage_seconds(run) == {} and time_table([run]) is None


def test_thinning_keeps_means_ranges_and_gaps():
    values = np.arange(1000, dtype=np.float64)
    values[10:20] = np.nan
    values[3] = np.nan
    curve = thin(Series(np.arange(1000), values), 100)
    assert len(curve.x) == 100 and curve.steps_per_point == 10
    assert curve.y[0] == pytest.approx(np.nanmean(values[:10])) and math.isnan(curve.y[1]) and math.isnan(curve.low[1])
    assert (curve.low[2], curve.high[2], curve.x[2]) == (20, 29, 24.5)
    short = thin(Series(np.arange(7), np.ones(7)), 100)
    assert short.steps_per_point == 1 and len(short.x) == 7


def test_answers_are_paired_by_question_and_repetition(tmp_path):
    run = write_run(tmp_path, rewards())
    row = {"gts": "2", "outcome": "wrong"}
    before = [
        {"input": "q", "output": "first", "score": 0.0} | row,
        {"input": "q", "output": "second", "score": 1.0} | row,
    ]
    after = [
        {"input": "q", "output": "x" * 5000, "score": 1.0} | row,
        {"input": "q", "output": "new", "score": 1.0} | row,
    ]
    write_validation(run, 0, before)
    assert from_validation(run) is None, "one validation has no before and after"
    write_validation(run, 10, after)
    write_validation(run, 9, before)
    comparison = from_validation(run)
    assert (comparison.before, comparison.after) == ("step 0", "step 10")
    assert comparison.counts == {"now correct": 1, "no longer correct": 0, "still wrong": 0, "still correct": 1}
    first = comparison.pairs[0]
    assert first.before.text == "first" and len(first.after.text) + first.after.left_out == 5000


def test_a_long_run_is_thinned_and_the_page_says_so(tmp_path):
    run = write_run(
        tmp_path, steps(2000, **{"critic/score/mean": lambda i: i % 7, "relift/sft_updates": lambda i: i // 2})
    )
    report(run, "--output", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "Each point is the mean of 5 steps" in text and "one tick stands for 3 updates" in text
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_run_gives_the_same_page(tmp_path):
    run = write_run(tmp_path, rewards())
    report(run, "--output", tmp_path / "one.html")
    report(run, "--output", tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_label_that_looks_like_mathematics_is_drawn(tmp_path):
    one, two = write_run(tmp_path / "a", rewards()), write_run(tmp_path / "b", rewards())
    report(f"$\\frac{{1$={one}", f"_b_{{={two}", "--output", tmp_path / "report.html")


@pytest.mark.slow
def test_ten_thousand_steps_take_little_longer_than_ten_and_five_megabytes(tmp_path):
    few, _ = _made(tmp_path / "few", 10)
    many, size = _made(tmp_path / "many", 10_000)
    print(f"report of 10 steps: {few:.1f} CPU s; of 10,000 steps: {many:.1f} CPU s, {size / 1e6:.2f} MB")
    assert many <= 2.5 * few and size <= 5_000_000


def _made(folder, count):
    """Make the page of a run; returns the CPU seconds, which depend less on other load than the clock's, and bytes."""
    rng = np.random.default_rng(0)
    drawn = [panel.metric for panel in PANELS] + ["timing_s/gen", "timing_s/update_actor", "timing_s/step"]
    names = drawn + [f"extra/metric_{i}" for i in range(50)]
    lines = [
        {"step": i, "time": float(i), "relift/sft_updates": i // 4, **dict(zip(names, row, strict=True))}
        for i, row in enumerate(rng.random((count, len(names))).tolist(), 1)
    ]
    run = write_run(folder, lines)
    output = folder / "report.html"
    before = os.times()
    subprocess.run([sys.executable, "-m", "verl_relift.report", str(run), "--output", str(output)], check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, output.stat().st_size


# ---- runs in progress ------------------------------------------------------------------------------------------------

TRAINER = "method: {name: relift}\ntrainer: {total_training_steps: 5}\n"


@pytest.mark.parametrize(
    ("count", "age", "state"),
    [(3, 0, "in progress, step 3 of 5"), (3, 600, "ended early, step 3 of 5"), (3, None, "ended early, step 3 of 5"),
     (5, None, "finished, step 5 of 5")],
    ids=["running", "killed", "stopped", "done"],
)  # fmt: skip
def test_the_page_says_where_a_run_is(tmp_path, capsys, count, age, state):
    run = write_run(tmp_path / "run", rewards(count), TRAINER)
    if age is not None:
        lock = run / "run.lock"
        lock.write_text("{}")
        os.utime(lock, (time.time() - age, time.time() - age))
    report(run)
    page = Page((run / "report.html").read_text())
    assert state in page.text and f"(run: {state})" in capsys.readouterr().out
    assert ("keeps this page up to date" in page.text) is (age == 0)
    assert not any(attributes.get("http-equiv") == "refresh" for _, attributes in page.tags)


def test_watching_makes_the_page_again_until_the_run_has_ended(tmp_path, capsys, monkeypatch):
    run = write_run(tmp_path / "run", rewards(3), TRAINER)
    (run / "run.lock").write_text("{}")
    seen = []

    def sleep(seconds):
        seen.append((seconds, (run / "report.html").read_text()))
        if len(seen) == 2:
            write_run(run, rewards(5), TRAINER)
            (run / "run.lock").unlink()

    monkeypatch.setattr("time.sleep", sleep)
    report(run, "--watch", "2")
    assert [seconds for seconds, _ in seen] == [2.0, 2.0]
    assert all('http-equiv="refresh" content="2"' in text for _, text in seen)
    assert "refresh" not in (run / "report.html").read_text()
    assert capsys.readouterr().out.count("report.html and curves.png") == 3


def test_watching_survives_a_restart(tmp_path, capsys, monkeypatch):
    """Between two attempts of `--max-restarts` nobody holds the folder."""
    run = write_run(tmp_path / "run", rewards(3), TRAINER)
    lock = run / "run.lock"
    lock.write_text("{}")
    stages = iter([lock.unlink, lambda: None, lambda: lock.write_text("{}"),
                   lambda: (write_run(run, rewards(5), TRAINER), lock.unlink())])  # fmt: skip
    monkeypatch.setattr("time.sleep", lambda seconds: next(stages)())
    report(run, "--watch")
    states = [line.partition("(run: ")[2] for line in capsys.readouterr().out.splitlines()]
    assert states == [
        "in progress, step 3 of 5)",
        "ended early, step 3 of 5); watching 5 minutes more for a restart",
        "ended early, step 3 of 5)",
        "in progress, step 3 of 5)",
        "finished, step 5 of 5)",
    ]


def test_watching_waits_for_the_first_step(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.lock").write_text("{}")
    with pytest.raises(SystemExit) as end:
        report(run)
    assert end.value.code == 2 and "has not made its first step yet; --watch waits for it" in capsys.readouterr().err

    def sleep(seconds):
        write_run(run, rewards(5), TRAINER)
        (run / "run.lock").unlink()

    monkeypatch.setattr("time.sleep", sleep)
    report(run, "--watch")
    first, second = capsys.readouterr().out.splitlines()
    assert "first step" in first and "(run: finished, step 5 of 5)" in second


@pytest.mark.parametrize("config", [TRAINER, "method: {name: relift}\n"], ids=["steps known", "steps unknown"])
def test_watching_gives_a_run_up_that_nobody_restarts(tmp_path, capsys, monkeypatch, config):
    run = write_run(tmp_path / "run", rewards(3), config)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        page = (run / "report.html").read_text()
        assert "refresh" in page and "This page reloads itself." in page

    monkeypatch.setattr("time.sleep", sleep)
    report(run, "--watch", "100")
    assert slept == [100.0, 100.0, 100.0]
    assert "refresh" not in (run / "report.html").read_text()
    assert capsys.readouterr().out.count("watching 5 minutes more") == 1


def test_two_pages_in_one_folder_keep_their_pictures(tmp_path):
    one, two = write_run(tmp_path / "one", rewards()), write_run(tmp_path / "two", rewards(9))
    report(one, "--output", tmp_path / "a.html")
    first = (tmp_path / "a-curves.png").read_bytes()
    report(two, "--output", tmp_path / "b.html")
    assert (tmp_path / "a-curves.png").read_bytes() == first != (tmp_path / "b-curves.png").read_bytes()


def test_several_runs_need_an_output(tmp_path, capsys):
    with pytest.raises(SystemExit):
        report(write_run(tmp_path / "one", rewards()), write_run(tmp_path / "two", rewards()))
    assert "--output FILE.html" in capsys.readouterr().err


def test_counts_since_the_start_are_not_added_up_and_the_time_includes_the_start(tmp_path):
    lines = [{**line, "relift/demonstrations_rejected/overlong": 1, "timing_s/step": 4.0} for line in rewards(3)]
    lines[0]["timing_s/startup"] = 30.0
    run = read_run(write_run(tmp_path, lines, TRAINER))
    table = dict(map(tuple, (row[:2] for row in totals([run]).rows)))
    assert table["demonstrations rejected"] == "1 overlong"
    assert "demonstrations trained on, repeats counted" not in table
    assert table["wall-clock time"] == "0 min 54 s"  # 20 between the first line and the last, 4 before it, 30 to start


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"relift/sft_demonstrations": 8}, "8"),  # since the start
        ({"method/demonstrations_joined": 5}, "15"),  # of each step
        ({"method/demonstrations_used": 2, "relift/sft_demonstrations": 0}, "6"),
        ({"method/demonstrations_joined": 0}, "0"),
    ],
)
def test_demonstrations_count_wherever_a_method_trains_on_them(tmp_path, metrics, said):
    run = read_run(write_run(tmp_path, [{**line, **metrics} for line in rewards(3)], TRAINER))
    table = dict(map(tuple, (row[:2] for row in totals([run]).rows)))
    assert table["demonstrations trained on, repeats counted"] == said


def test_charts_say_what_healthy_is(tmp_path):
    report(write_run(tmp_path, rewards(), TRAINER))
    text = Page((tmp_path / "report.html").read_text()).text
    assert "Healthy: rises, then levels off." in text.replace("\n", " ")


def test_the_picture_has_the_curves_of_the_page_on_watching():
    page = (Path(__file__).parents[3] / "docs/watch.md").read_text()
    rows = re.findall(r"^\| (?!curve|---)([^|]+) \|", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert len(rows) == 5 and len(named) == 7
    assert named <= {panel.metric for panel in figure_panels()}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("dataset", []),
        ("teacher", ["method.teacher.model"]),
        ("dataset_then_teacher", ["method.teacher.model"]),
        ("privileged", ["method.privileged.traces"]),
    ],
)
def test_settings_of_a_source_that_is_not_used_are_no_difference(tmp_path, source, shown):
    method = f"{{demonstrations: {{source: {source}}}, teacher: {{model: m}}, privileged: {{traces: 1}}}}"
    runs = [
        read_run(write_run(tmp_path / "one", rewards(), f"method: {method}\n")),
        read_run(write_run(tmp_path / "two", rewards(), f"method: {{demonstrations: {{source: {source}}}}}\n")),
    ]
    table = settings_table(runs)
    assert [row[0] for row in table.rows if row[0].startswith("method.")] == shown if shown else table is None
