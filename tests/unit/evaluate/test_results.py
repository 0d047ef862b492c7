"""Tests graded responses on disk and the numbers from them: the store, the summary, the comparison."""

import json

import pytest

from verl_relift.evaluate.compare import compare, comparison_table
from verl_relift.evaluate.errors import EvaluationError
from verl_relift.evaluate.store import GENERATIONS, SETTINGS, Graded, Store, read_generations, write_summary
from verl_relift.evaluate.summary import collect, summarize, table

SETTINGS_ONE = {"model": "m", "temperature": 0.6}


def graded(key="f:0", sample=0, outcome="correct", answer="2", source="s", tokens=10, truncated=False, prompt=""):
    return Graded(
        key,
        sample,
        source,
        prompt or f"1+1=? ({key})",
        outcome,
        answer,
        "2",
        tokens,
        truncated,
        "text\u2028with odd lines\n",
    )


def fill(folder, rows, settings=SETTINGS_ONE):
    store = Store(folder, settings)
    for one in rows:
        store.append(one)
    store.finish()
    write_summary(folder, summarize(collect(read_generations(folder))))
    return folder


def test_graded_responses_are_not_generated_again(tmp_path):
    store = Store(tmp_path, SETTINGS_ONE)
    store.append(graded())
    store.append(graded("f:1", 3))
    assert Store(tmp_path, SETTINGS_ONE).done() == {("f:0", 0), ("f:1", 3)}


def test_a_line_that_a_kill_tore_is_dropped_and_made_again(tmp_path):
    store = Store(tmp_path, SETTINGS_ONE)
    store.append(graded())
    with (tmp_path / GENERATIONS).open("a") as file:
        file.write('{"key": "f:1", "sample": 0, "sour')
    store = Store(tmp_path, SETTINGS_ONE)
    assert store.done() == {("f:0", 0)}
    store.append(graded("f:1"))
    assert [one.key for one in read_generations(tmp_path)] == ["f:0", "f:1"]


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "evaluate.log").write_text("this command's own")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EvaluationError, match=r"has no evaluation, but config\.json; choose a new --output"):
        Store(tmp_path, SETTINGS_ONE)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "config.json").unlink()
    assert Store(tmp_path, SETTINGS_ONE).done() == set()


def test_another_evaluation_in_the_folder_is_an_error(tmp_path):
    Store(tmp_path, SETTINGS_ONE).append(graded())
    with pytest.raises(EvaluationError, match=r"temperature: 0\.6 in the folder, 1\.0 now"):
        Store(tmp_path, SETTINGS_ONE | {"temperature": 1.0})
    (tmp_path / SETTINGS).unlink()
    with pytest.raises(EvaluationError, match=r"no settings\.json"):
        Store(tmp_path, SETTINGS_ONE)


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / GENERATIONS).write_text('{"key": "f:0"}\n')
    with pytest.raises(EvaluationError, match="line 1: not a response"):
        list(read_generations(tmp_path))


def test_finished_files_do_not_depend_on_the_order_of_arrival(tmp_path):
    rows = [graded(f"f:{row}", sample) for row in (0, 2, 10) for sample in (0, 1)]
    one, two = fill(tmp_path / "one", rows), fill(tmp_path / "two", rows[::-1])
    assert (one / GENERATIONS).read_bytes() == (two / GENERATIONS).read_bytes()
    assert [one.key for one in read_generations(one)] == ["f:0", "f:0", "f:2", "f:2", "f:10", "f:10"]


def source_rows(source, verdicts, file):
    """Return the rows of one source; `verdicts` has a list of outcomes per question."""
    return [
        graded(f"{file}:{row}", sample, outcome, "2" if outcome == "correct" else "3", source)
        for row, outcomes in enumerate(verdicts)
        for sample, outcome in enumerate(outcomes)
    ]


def test_the_summary_of_a_hand_made_case():
    rows = source_rows("s", [["correct", "wrong"], ["correct", "correct"], ["wrong", "no_answer"]], "f")
    rows[0] = graded("f:0", 0, tokens=40, truncated=True)
    summary = summarize(collect(rows))
    source = summary["sources"]["s"]
    assert source["accuracy"] == pytest.approx(0.5)
    assert source["pass_at_k"]["1"]["value"] == pytest.approx(0.5)
    assert source["pass_at_k"]["2"]["value"] == pytest.approx(2 / 3)
    assert source["majority"]["value"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert source["mean_tokens"] == pytest.approx((40 + 5 * 10) / 6)
    assert source["truncation_rate"] == pytest.approx(1 / 6)
    assert source["outcomes"] == {"correct": 3, "wrong": 2, "no_answer": 1}
    low, high = source["accuracy_interval"]
    assert 0 <= low < 0.5 < high <= 1
    assert summary == summarize(collect(rows)), "equal responses and seed give equal numbers"
    assert "1 no_answer" in table(summary)


def test_the_average_is_over_sources_not_questions():
    rows = source_rows("small", [["correct"]], "f") + source_rows("large", [["wrong"]] * 9, "g")
    assert summarize(collect(rows))["average"]["accuracy"] == pytest.approx(0.5)


@pytest.mark.parametrize("verdicts", [[["wrong"]] * 40, [["correct"]] * 40, [["correct"], ["wrong"], ["wrong"]]])
def test_the_average_of_one_source_has_its_interval(verdicts):
    summary = summarize(collect(source_rows("s", verdicts, "f")))
    assert summary["average"]["accuracy_interval"] == summary["sources"]["s"]["accuracy_interval"]


def test_the_papers_average_needs_all_six_benchmarks():
    six = ["aime24", "aime25", "amc", "math500", "olympiad", "mmlu_pro"]
    rows = [one for i, name in enumerate(six) for one in source_rows(name, [["correct"]] * (i + 1), name)]
    complete = summarize(collect([*rows, *source_rows("gsm8k", [["wrong"]], "x")]))
    assert complete["relift_average"]["accuracy"] == 1.0
    assert complete["average"]["accuracy"] == pytest.approx(6 / 7)
    assert summarize(collect(rows[1:]))["relift_average"] is None


def test_questions_with_different_numbers_of_samples_are_an_error():
    rows = source_rows("s", [["correct", "wrong"], ["correct"]], "f")
    with pytest.raises(EvaluationError, match="1 to 2 samples"):
        collect(rows)


def repeated_rows(copies, outcome="wrong"):
    """Return 10 questions, the first half right, each in `copies` rows with one sample."""
    return [
        graded(f"f:{copy * 10 + number}", 0, "correct" if number < 5 else outcome, prompt=f"question {number}")
        for copy in range(copies)
        for number in range(10)
    ]


def test_rows_that_repeat_a_question_are_samples_of_it():
    once = summarize(
        collect([graded(f"f:{n}", s, "correct" if n < 5 else "wrong") for n in range(10) for s in range(8)])
    )
    repeated = summarize(collect(repeated_rows(8)))
    mine, theirs = repeated["sources"]["s"], once["sources"]["s"]
    assert (mine["questions"], mine["rows"], mine["n"]) == (10, 80, 8)
    assert mine | {"rows": 10} == theirs, "as if the file had each question once and n were 8"
    assert "80 rows repeat 10 questions" in table(repeated) and "repeat" not in table(once)


def test_questions_repeated_unequally_count_once_each():
    rows = [*repeated_rows(2), graded("f:99", 0, "wrong", prompt="question 0")]
    source = summarize(collect(rows))["sources"]["s"]
    assert source["n"] == 2 and source["questions"] == 10
    assert source["accuracy"] == pytest.approx((4 + 2 / 3) / 10)


def test_a_comparison_pairs_repeated_questions(tmp_path):
    before, after = fill(tmp_path / "a", repeated_rows(8)), fill(tmp_path / "b", repeated_rows(8, "correct"))
    row = compare(before, after)["sources"]["s"]
    assert row["questions"] == 10 and row["difference"] == pytest.approx(0.5)
    low, high = row["interval"]
    assert low < 0.25 and high > 0.75, "ten questions, not eighty"


def test_a_comparison_pairs_questions(tmp_path):
    before = fill(tmp_path / "before", source_rows("s", [["wrong"]] * 30 + [["correct"]] * 70, "f"))
    after = fill(tmp_path / "after", source_rows("s", [["correct"]] * 10 + [["wrong"]] * 20 + [["correct"]] * 70, "f"))
    row = compare(before, after)["sources"]["s"]
    assert (row["before"], row["after"]) == (pytest.approx(0.7), pytest.approx(0.8))
    assert row["difference"] == pytest.approx(0.1)
    low, high = row["interval"]
    # Unpaired, the two intervals overlap widely; paired, no question got worse.
    assert 0 < low < 0.1 < high < 0.2
    assert "+10.0" in comparison_table(compare(before, after), "before", "after")


def test_a_comparison_of_other_questions_is_an_error_and_other_sources_are_named(tmp_path):
    one = fill(tmp_path / "one", source_rows("s", [["wrong"]], "f") + source_rows("t", [["wrong"]], "h"))
    with pytest.raises(EvaluationError, match="different questions"):
        compare(one, fill(tmp_path / "two", source_rows("s", [["wrong"]], "g")))
    with pytest.raises(EvaluationError, match="no source in common"):
        compare(one, fill(tmp_path / "three", source_rows("u", [["wrong"]], "f")))
    part = compare(one, fill(tmp_path / "four", source_rows("s", [["wrong"]], "f"), {"model": "n"}))
    assert part["only_before"] == ["t"] and part["settings"] == ["model", "temperature"]


def test_summaries_are_json_without_nan(tmp_path):
    fill(tmp_path, source_rows("s", [["wrong"]], "f"))
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
