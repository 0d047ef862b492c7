"""Tests questions from parquet, the protocol, and every invalid input that is rejected before a model is loaded."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_relift.evaluate import __main__ as evaluate
from verl_relift.evaluate.errors import EvaluationError
from verl_relift.evaluate.protocol import Sampling, parse_n, relift_benchmark, relift_samples
from verl_relift.evaluate.questions import read_questions


def row(source="arithmetic/easy", question="1+1=?", truth="2"):
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": question}],
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra": 1,
    }


def write(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_questions_keep_their_order_and_key_when_the_file_moves(tmp_path):
    first = write(tmp_path / "a.parquet", [row(), row(question="2+2=?", truth="4")])
    questions, files = read_questions([first])
    assert [question.ground_truth for question in questions] == ["2", "4"]
    assert files[0].rows == 2 and files[0].name == "a.parquet"
    moved, _ = read_questions([first.rename(tmp_path / "b.parquet")])
    assert [question.key for question in moved] == [question.key for question in questions]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(truth=""), "reward_model.ground_truth"),
        (row(truth="  "), "reward_model.ground_truth"),
        (row(truth=None), "reward_model.ground_truth"),
        (row(question=""), "prompt"),
        (row(source=""), "data_source"),
        (row() | {"prompt": []}, "prompt"),
    ],
)
def test_a_row_that_cannot_be_evaluated_is_named(tmp_path, bad, message):
    path = write(tmp_path / "a.parquet", [row(), bad])
    with pytest.raises(EvaluationError, match=rf"a\.parquet: 1 rows without {message}, such as row 1"):
        read_questions([path])


def test_files_that_are_no_questions(tmp_path):
    (tmp_path / "x.parquet").write_text("not parquet")
    with pytest.raises(EvaluationError, match="not a parquet file"):
        read_questions([tmp_path / "x.parquet"])
    with pytest.raises(EvaluationError, match="no such file"):
        read_questions([tmp_path / "y.parquet"])
    path = write(tmp_path / "z.parquet", [{"prompt": "x"}])
    with pytest.raises(EvaluationError, match="no column data_source, reward_model"):
        read_questions([path])
    path = write(tmp_path / "t.parquet", [row() | {"prompt": "What is 1+1?"}])
    with pytest.raises(EvaluationError, match=r"prompt has texts, not lists of messages; python -m data_preprocess"):
        read_questions([path])
    with pytest.raises(EvaluationError, match="is a folder; name its files"):
        read_questions([tmp_path])
    path = write(tmp_path / "a.parquet", [row()])
    with pytest.raises(EvaluationError, match="same contents"):
        read_questions([path, path])


def test_a_damaged_file_is_named(tmp_path):
    rows = [row(question=f"{n}+{n}=? " + "because " * 50) for n in range(200)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=r"a\.parquet: not a parquet file, or a damaged one"):
        read_questions([path])


def test_a_text_that_is_not_utf8_is_named(tmp_path):
    prompt = pa.array([[{"role": "user", "content": "1+1=?"}]])
    source = pa.array([b"caf\xe9"]).view(pa.string())
    table = pa.table({"data_source": source, "prompt": prompt, "reward_model": pa.array([{"ground_truth": "2"}])})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(EvaluationError, match=r"a\.parquet: a text is not UTF-8"):
        read_questions([tmp_path / "a.parquet"])


@pytest.mark.parametrize(
    ("copies", "samples"),
    [(1, 32), (8, 4), (32, 1), (64, 1), (5, 7)],
)
def test_the_protocol_counts_copies_as_samples(tmp_path, copies, samples):
    path = write(tmp_path / "a.parquet", [row("aime24", f"{n}+1=?") for n in range(3)] * copies)
    questions, _ = read_questions([path])
    assert evaluate._protocol_samples("aime24", questions) == samples


@pytest.mark.parametrize(
    ("source", "benchmark", "samples"),
    [
        ("aime24", "AIME24", 32),
        ("math-ai/AIME_2025", "AIME25", 32),
        ("aime", "AIME24", 32),
        ("amc23", "AMC", 32),
        ("HuggingFaceH4/MATH-500", "MATH500", 1),
        ("olympiad_bench", "Olympiad", 1),
        ("mmlu_pro", "MMLU-Pro", 1),
        ("arithmetic/hardest", None, 1),
        ("gsm8k", None, 1),
    ],
)
def test_the_papers_protocol_knows_its_benchmarks(source, benchmark, samples):
    assert relift_benchmark(source) == benchmark
    assert relift_samples(source) == samples


def test_n_by_source():
    assert parse_n(["4", "amc=32"], ["amc", "math500"]) == (4, {"amc": 32})
    with pytest.raises(EvaluationError, match="no such source; the data have amc"):
        parse_n(["aime=32"], ["amc"])
    with pytest.raises(EvaluationError, match="expected a number"):
        parse_n(["many"], ["amc"])
    with pytest.raises(EvaluationError, match="--n amc=0: expected a number above 0"):
        parse_n(["amc=0"], ["amc"])


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 0},
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"temperature": 0.0, "n": 2},
        {"n_of": {"a": 0}},
    ],
)
def test_invalid_sampling_is_an_error(settings):
    with pytest.raises(EvaluationError):
        Sampling(**settings)


def test_seeds_differ_by_sample_and_question_and_not_by_order():
    sampling = Sampling(n=4, temperature=1.0)
    seeds = {sampling.seed_of(key, sample) for key in ("a:0", "a:1") for sample in range(4)}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)
    assert sampling.seed_of("a:0", 3) == Sampling(n=9, temperature=0.5).seed_of("a:0", 3)
    assert sampling.seed_of("a:0", 0) != Sampling(seed=1).seed_of("a:0", 0)


def test_the_command_line_ends_with_one_line(tmp_path, capsys):
    data = str(write(tmp_path / "a.parquet", [row()]))
    for arguments, message in (
        (["--data", data, "--output", str(tmp_path / "o")], "--model is required"),
        (["--model", str(tmp_path), "--data", data, "--output", str(tmp_path / "o")], "no config.json"),
        (["--compare", str(tmp_path)], "--compare takes two evaluation folders"),
        (["--compare", str(tmp_path), str(tmp_path)], "did not finish"),
    ):
        with pytest.raises(SystemExit) as ended:
            evaluate.main(arguments)
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_a_model_folder_without_all_its_weights(tmp_path, capsys):
    data = str(write(tmp_path / "a.parquet", [row()]))
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 8, "max_position_embeddings": 8}))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "model-1.safetensors"}}))
    with pytest.raises(SystemExit):
        evaluate.main(["--model", str(tmp_path), "--data", data, "--output", str(tmp_path / "o")])
    assert "lacks model-1.safetensors" in capsys.readouterr().err
