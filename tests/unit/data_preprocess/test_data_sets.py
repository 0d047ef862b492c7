"""Each data set, on local files of its original schema."""

import argparse
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_preprocess import benchmarks, gsm8k, jsonl, openr1_math
from data_preprocess import math as hendrycks
from data_preprocess.answers import last_boxed
from data_preprocess.cli import add_common_flags, main
from verl_relift.data.errors import DataError, Reason
from verl_relift.data.schema import SCHEMA

GSM8K = Path(__file__).parents[2] / "data" / "gsm8k"


def write_jsonl(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def rows(folder, file="train.parquet"):
    table = pq.read_table(folder / file)
    assert table.schema.equals(SCHEMA)
    return table.to_pylist()


def stats(folder, file="train.parquet"):
    return json.loads((folder / "stats.json").read_text())["files"][file]


def test_gsm8k(tmp_path):
    assert main(gsm8k.GSM8K, ["--input", str(GSM8K), "--output", str(tmp_path), "--verify"]) == 0
    train, test = rows(tmp_path), rows(tmp_path, "test.parquet")
    assert (len(train), len(test)) == (200, 50)
    assert stats(tmp_path)["demonstrations"] == 200
    for row in train + test:
        target = row["target"][0]["content"]
        assert "<<" not in target and ">>" not in target and "####" not in target
        assert target.startswith("<think>") and target.count("</think>") == 1
        assert last_boxed(target) == row["reward_model"]["ground_truth"]
    assert train[0]["reward_model"]["ground_truth"] == "72"
    assert [message["role"] for message in train[0]["prompt"]] == ["system", "user"]
    assert [row["extra_info"]["index"] for row in train] == list(range(200))
    assert {row["extra_info"]["split"] for row in test} == {"test"}


def test_gsm8k_templates(tmp_path):
    file = str(GSM8K / "train.jsonl")
    for template in ("none", "boxed"):
        assert main(gsm8k.GSM8K, ["--input", file, "--output", str(tmp_path), "--template", template]) == 0
        row = rows(tmp_path)[0]
        assert [message["role"] for message in row["prompt"]] == ["user"] if template == "none" else ["system", "user"]
        assert "<think>" not in row["target"][0]["content"]
        assert row["target"][0]["content"].endswith("\\boxed{72}")


@pytest.mark.parametrize(
    ("answer", "solution", "number"),
    [
        ("a <<1+1=2>>2\n#### 1,234", "a 2", "1234"),
        ("b\n#### -5", "b", "-5"),
        ("c\n#### $2.50", "c", "2.50"),
        ("1 < 2 << 3\n#### 3", "1 < 2 << 3", "3"),
    ],
)
def test_gsm8k_answers(answer, solution, number):
    assert gsm8k.split_answer(answer) == (solution, number)


@pytest.mark.parametrize("answer", ["no mark 7", "text\n#### ", "text\n#### seven", ""])
def test_gsm8k_without_a_number(answer):
    with pytest.raises(DataError) as caught:
        gsm8k.split_answer(answer)
    assert caught.value.reason == Reason.NO_GROUND_TRUTH


def test_math_in_its_original_folders(tmp_path):
    problem = {"problem": "1+1?", "level": "Level 2", "type": "Algebra", "solution": "It is $\\boxed{2}$."}
    for name, change in (
        ("train/algebra/1", {}),
        ("train/geometry/7", {"level": "Level ?"}),
        ("test/algebra/1", {"level": "Level 5"}),
    ):
        path = tmp_path / "MATH" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(problem | change))
    out = tmp_path / "out"
    assert main(hendrycks.MATH, ["--input", str(tmp_path / "MATH"), "--output", str(out)]) == 0
    assert [row["extra_info"]["level"] for row in rows(out)] == ["2", None]
    assert rows(out)[0]["reward_model"]["ground_truth"] == "2"
    assert rows(out, "test.parquet")[0]["extra_info"]["level"] == "5"
    arguments = ["--input", str(tmp_path / "MATH"), "--output", str(out), "--difficulty", "1", "2"]
    assert main(hendrycks.MATH, arguments) == 0
    assert len(rows(out)) == 1 and stats(out)["left_out"] == {"other_difficulty": 1}


def ready_file(path, targets):
    """The layout of Elliott/Openr1-Math-46k-8192."""
    message = pa.struct([("content", pa.string()), ("role", pa.string())])
    records = [
        {
            "data_source": "openr1",
            "prompt": [{"content": "a system prompt", "role": "system"}, {"content": f"question {i}", "role": "user"}],
            "target": target,
            "ability": "math",
            "reward_model": {"ground_truth": str(i), "style": "rule"},
            "extra_info": {"index": 7 * i, "split": "default"},
        }
        for i, target in enumerate(targets)
    ]
    kind = pa.string() if all(target is None or isinstance(target, str) for target in targets) else pa.list_(message)
    fields = [
        ("data_source", pa.string()),
        ("prompt", pa.list_(message)),
        ("target", kind),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("ground_truth", pa.string()), ("style", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("split", pa.string())])),
    ]
    pq.write_table(pa.Table.from_pylist(records, pa.schema(fields)), path)
    return path


@pytest.mark.parametrize(
    "targets",
    [
        [[{"content": "<think>x\n</think>\\boxed{0}", "role": "assistant"}], None],
        ["<think>x\n</think>\\boxed{0}", None],
    ],
)
def test_openr1_math_ready_layout(tmp_path, targets):
    file = ready_file(tmp_path / "openr1.parquet", targets)
    assert main(openr1_math.OPENR1_MATH, ["--input", str(file), "--output", str(tmp_path / "out"), "--verify"]) == 0
    first, second = rows(tmp_path / "out")
    assert first["target"] == [{"role": "assistant", "content": "<think>x\n</think>\\boxed{0}"}]
    assert second["target"] is None
    assert first["prompt"][0]["content"] == "a system prompt"
    arguments = ["--input", str(file), "--output", str(tmp_path / "out"), "--template", "none"]
    assert main(openr1_math.OPENR1_MATH, arguments) == 0
    assert [message["role"] for message in rows(tmp_path / "out")[0]["prompt"]] == ["user"]


def raw(**change):
    """The layout of open-r1/OpenR1-Math-220k."""
    record = {
        "problem": "What is 1+1?",
        "solution": "It is 2.",
        "answer": "2",
        "problem_type": "Algebra",
        "source": "olympiads",
        "uuid": "u1",
        "generations": [
            "<think>a long way</think> \\boxed{2}",
            "<think>b</think> \\boxed{3}",
            "<think>c</think> \\boxed{2}",
        ],
        "correctness_math_verify": [True, False, True],
        "is_reasoning_complete": [True, True, True],
    }
    return record | change


def test_openr1_math_raw_layout(tmp_path):
    records = [
        raw(),
        raw(uuid="u2", is_reasoning_complete=[False, True, True]),
        raw(uuid="u3", correctness_math_verify=[False, False, False]),
        raw(uuid="u4", answer=""),
        raw(uuid="u5", correctness_math_verify=None),
    ]
    file = write_jsonl(tmp_path / "train.jsonl", records)
    out = tmp_path / "out"
    assert main(openr1_math.OPENR1_MATH, ["--input", str(file), "--output", str(out)]) == 0
    assert [row["target"][0]["content"][:8] for row in rows(out)] == ["<think>a", "<think>c"]
    assert rows(out)[0]["extra_info"] == {"index": 0, "split": "train", "level": "olympiads", "id": "u1"}
    assert stats(out)["left_out"] == {"no_target": 2, "not_verifiable": 1}
    arguments = ["--input", str(file), "--output", str(out), "--generation", "shortest", "--keep-unsolved"]
    assert main(openr1_math.OPENR1_MATH, arguments) == 0
    assert [row["target"] and row["target"][0]["content"][:8] for row in rows(out)] == [
        "<think>c",
        "<think>c",
        None,
        None,
    ]


def test_openr1_math_lists_of_different_lengths_are_a_fault(tmp_path, capsys):
    file = write_jsonl(tmp_path / "train.jsonl", [raw(correctness_math_verify=[True])])
    assert main(openr1_math.OPENR1_MATH, ["--input", str(file), "--output", str(tmp_path / "out")]) == 1
    assert "row 1, column correctness_math_verify: not a list of 3 marks" in capsys.readouterr().err


def test_own_data_with_mapped_columns(tmp_path):
    records = [
        {"chat": [{"role": "user", "content": "q0"}], "meta": {"gold": 4}, "way": "so 4", "tier": "a", "key": 10},
        {"chat": "q1", "meta": {"gold": ["5"]}, "way": None, "tier": "b", "key": 11},
        {"chat": "q2", "meta": {"gold": 0.5}, "tier": "b", "key": 12},
    ]
    file = write_jsonl(tmp_path / "mine.jsonl", records)
    columns = [
        "--question-column",
        "chat",
        "--answer-column",
        "meta.gold",
        "--target-column",
        "way",
        "--id-column",
        "key",
    ]
    more = ["--level-column", "tier", "--data-source", "mine", "--template", "think", "--split", "test"]
    assert main(jsonl.JSONL, ["--input", str(file), "--output", str(tmp_path), *columns, *more]) == 0
    first, second, third = rows(tmp_path, "test.parquet")
    assert first["target"][0]["content"] == "<think>so 4\n</think>\\boxed{4}"
    assert [row["reward_model"]["ground_truth"] for row in (first, second, third)] == ["4", "5", "0.5"]
    assert second["target"] is third["target"] is None
    assert first["extra_info"] == {"index": 0, "split": "test", "level": "a", "id": "10"}
    assert first["data_source"] == "mine"


def test_own_data_missing_column_lists_the_existing_ones(tmp_path, capsys):
    file = write_jsonl(tmp_path / "mine.jsonl", [{"q": "1", "a": "1"}])
    assert main(jsonl.JSONL, ["--input", str(file), "--output", str(tmp_path)]) == 1
    line = "mine.jsonl, column question: no row has this column (there are: q, a); name it with --question-column"
    assert line in capsys.readouterr().err
    assert main(jsonl.JSONL, ["--input", str(file), "--output", str(tmp_path), "--question-column", "q"]) == 1
    assert (
        "column answer: no row has this column (there are: q, a); name it with --answer-column"
        in capsys.readouterr().err
    )


GPQA = {
    "Question": "Which?",
    "Correct Answer": "right ",
    "Incorrect Answer 1": "x",
    "Incorrect Answer 2": "y",
    "Incorrect Answer 3": "z",
    "Record ID": "rec1",
    "High-level domain": "Physics",
}
BENCHMARK_RECORDS = {
    "aime24": ({"id": 60, "problem": "p", "solution": "s", "answer": "033", "url": "u", "year": "2024"}, "033", None),
    "aime25": ({"problem": "p", "answer": "70", "id": "0"}, "70", None),
    "amc23": ({"id": 0, "question": "p", "answer": 27.0, "url": "u"}, "27", None),
    "math500": (
        {"problem": "p", "solution": "s", "answer": "\\pi", "subject": "Algebra", "level": 2, "unique_id": "a/1"},
        "\\pi",
        "2",
    ),
    "minerva": (
        {"problem": "p", "solution": "it is \\boxed{4.5e33}", "type": "Astronomy", "idx": 1},
        "4.5e33",
        "Astronomy",
    ),
    "olympiadbench": (
        {"id": 1, "question": "p", "final_answer": ["$69$,$84$"], "subfield": "Algebra"},
        "$69$,$84$",
        "Algebra",
    ),
    "mmlu_pro": (
        {"question_id": 1, "question": "p", "options": ["a", "b", "c"], "answer": "C", "category": "law"},
        "C",
        "law",
    ),
    "gpqa_diamond": (GPQA, None, "Physics"),
    "arc_challenge": (
        {"id": "1", "question": "p", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"},
        "B",
        None,
    ),
}


def test_benchmarks(tmp_path):
    assert set(BENCHMARK_RECORDS) == set(benchmarks.BENCHMARKS)
    for i, (name, (record, _, _)) in enumerate(BENCHMARK_RECORDS.items()):
        write_jsonl(tmp_path / (f"{name}.jsonl" if i % 2 else f"{name}/test.jsonl"), [record])
    out = tmp_path / "out"
    assert benchmarks.main(["--input", str(tmp_path), "--output", str(out)]) == 0
    for name, (_, answer, level) in BENCHMARK_RECORDS.items():
        (row,) = rows(out, f"{name}.parquet")
        assert row["data_source"] == name and row["target"] is None
        assert answer is None or row["reward_model"]["ground_truth"] == answer
        assert row["extra_info"]["level"] == level
        assert row["extra_info"]["split"] == "test"
    (row,) = rows(out, "gpqa_diamond.parquet")
    assert f"{row['reward_model']['ground_truth']}. right\n" in row["prompt"][-1]["content"]
    assert "A. a\nB. b\n" in rows(out, "arc_challenge.parquet")[0]["prompt"][-1]["content"]


def test_gpqa_order_depends_only_on_the_question_and_the_seed():
    alone = benchmarks.read_gpqa(GPQA, 0)
    assert benchmarks.read_gpqa(dict(GPQA), 0) == alone
    letters = {benchmarks.read_gpqa(GPQA | {"Question": f"Which {i}?"}, 0).answer for i in range(40)}
    assert letters == set("ABCD")


@pytest.mark.parametrize(
    ("read", "record", "reason"),
    [
        (benchmarks.read_mmlu_pro, {"question": "p", "options": ["a", "b"], "answer": "C"}, Reason.NO_GROUND_TRUTH),
        (benchmarks.read_mmlu_pro, {"question": "p", "options": None, "answer": "A"}, Reason.WRONG_TYPE),
        (
            benchmarks.read_arc,
            {"question": "p", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"},
            Reason.NO_GROUND_TRUTH,
        ),
        (benchmarks.read_olympiad, {"question": "p", "final_answer": None}, Reason.NOT_VERIFIABLE),
        (benchmarks.read_problem, {"problem": None, "answer": "1"}, Reason.EMPTY_PROMPT),
    ],
)
def test_benchmark_faults(read, record, reason):
    with pytest.raises(DataError) as caught:
        read(record, 0)
    assert caught.value.reason == reason


def test_a_missing_benchmark(tmp_path, capsys):
    write_jsonl(tmp_path / "aime24.jsonl", [BENCHMARK_RECORDS["aime24"][0]])
    assert (
        benchmarks.main(["--benchmark", "aime24", "amc23", "--input", str(tmp_path), "--output", str(tmp_path / "o")])
        == 1
    )
    assert "no amc23 in this folder" in capsys.readouterr().err


def test_the_help_fits_on_a_screen_and_no_flag_is_lost(capsys):
    """A flag that the help leaves out is on the page that it names."""
    with pytest.raises(SystemExit) as caught:
        main(jsonl.JSONL, ["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0 and len(text.splitlines()) <= 22 and max(map(len, text.splitlines())) <= 120
    parser = argparse.ArgumentParser()
    add_common_flags(parser, jsonl.JSONL)
    jsonl.add_flags(parser)
    flags = ["--" + name.replace("_", "-") for name in vars(parser.parse_args(["--input", "x", "--output", "y"]))]
    page = (Path(__file__).parents[3] / "docs/data.md").read_text()
    assert len(flags) == 25 and [flag for flag in flags if flag not in text + page] == []
