"""The pipeline: faults with their place, filters, determinism, and files that appear complete or not at all."""

import errno
import json
import random
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_preprocess import gsm8k, jsonl
from data_preprocess.cli import main
from data_preprocess.pipeline import Sample
from verl_relift.data.background import read_ahead
from verl_relift.data.errors import DataError, Reason
from verl_relift.data.overlap import NGramIndex
from verl_relift.data.schema import Row
from verl_relift.data.sources import Source, find, read_file
from verl_relift.data.tokens import TokenCounter
from verl_relift.testing.tokenizer import make_tokenizer

GSM8K = Path(__file__).parents[2] / "data" / "gsm8k"
GOOD = {"question": "1+1?", "answer": "2", "target": "<think>1+1=2\n</think>\\boxed{2}"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = (GSM8K / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return str(make_tokenizer(tmp_path_factory.mktemp("tokenizer"), texts, 600))


def lines(path: Path, *records) -> str:
    path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records))
    return str(path)


def run(source, out, *flags) -> int:
    return main(jsonl.JSONL, ["--input", str(source), "--output", str(out), "--target-column", "target", *flags])


def questions(out) -> list[str]:
    return [row["prompt"][-1]["content"] for row in pq.read_table(out / "train.parquet").to_pylist()]


def summary(out) -> dict:
    return json.loads((out / "stats.json").read_text())["files"]["train.parquet"]


FAULTS = {
    "malformed_json": b'{"question": "1+1?", ',
    "invalid_utf8": b'{"question": "1+1\xff?", "answer": "2"}',
    "half_surrogate": b'{"question": "1+1 \\ud800?", "answer": "2"}',
    "not_an_object": b"[1, 2]",
    "wrong_type": {"question": 7, "answer": "2"},
    "null_prompt": {"question": None, "answer": "2"},
    "blank_prompt": {"question": " ", "answer": "2"},
    "null_answer": {"question": "1+1?", "answer": None},
    "missing_column": {"answer": "2"},
    "wrong_target": {"question": "1+1?", "answer": "2", "target": 3},
    "deep": b'{"question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_reported_with_file_and_line(tmp_path, capsys, fault):
    source = lines(tmp_path / "bad.jsonl", GOOD, FAULTS[fault], GOOD)
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.parquet").write_bytes(b"before")
    assert run(source, out) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "bad.jsonl, row 2" in error
    assert [path.name for path in out.iterdir()] == ["train.parquet"]
    assert (out / "train.parquet").read_bytes() == b"before"


def test_skipped_rows_are_counted_and_listed(tmp_path):
    source = lines(tmp_path / "bad.jsonl", GOOD, *FAULTS.values(), GOOD)
    out = tmp_path / "out"
    assert run(source, out, "--on-error", "skip") == 0
    assert len(questions(out)) == 2
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [entry["row"] for entry in rejected] == list(range(2, 2 + len(FAULTS)))
    assert {entry["file"] for entry in rejected} == {source}
    counts = summary(out)
    assert counts["rows_in"] == counts["kept"] + sum(counts["left_out"].values()) == len(FAULTS) + 2


def test_huge_field(tmp_path, capsys):
    huge = GOOD | {"target": "x" * (50 << 20)}
    source = lines(tmp_path / "huge.jsonl", GOOD, huge, GOOD)
    assert run(source, tmp_path / "out") == 1
    assert "huge.jsonl, row 2: the line has 52,428," in capsys.readouterr().err
    assert run(source, tmp_path / "out", "--on-error", "skip") == 0
    assert len(questions(tmp_path / "out")) == 2
    source = lines(tmp_path / "large.jsonl", GOOD | {"target": "x" * 1500})
    assert run(source, tmp_path / "out", "--max-field-bytes", "1000") == 1
    assert "row 1, column target: 1,500 characters" in capsys.readouterr().err


HUGE = "x" * (50 << 20)


@pytest.mark.parametrize(("bad", "reason"), [(b"1+1\xff?", "invalid_utf8"), (HUGE.encode(), "field_too_large")])
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_faulty_row_of_json_or_csv_is_named_and_skipped(tmp_path, capsys, kind, bad, reason):
    good, source, out = b"2?", tmp_path / f"data.{kind}", tmp_path / "out"
    if kind == "json":
        source.write_bytes(
            b"[%s]" % b", ".join(b'{"question": "%s", "answer": "2", "target": null}' % q for q in (good, bad, good))
        )
    else:
        source.write_bytes(b"question,answer,target\n" + b"".join(b"%s,2,\n" % q for q in (good, bad, good)))
    row = 2 if kind == "json" else 3  # a CSV file's first line is its header
    assert run(source, out) == 1
    assert f"data.{kind}, row {row}" in capsys.readouterr().err
    assert run(source, out, "--on-error", "skip") == 0
    assert questions(out) == ["2?", "2?"]
    assert summary(out)["left_out"] == {reason: 1}


def test_duplicate_ids(tmp_path, capsys):
    source = lines(tmp_path / "ids.jsonl", GOOD | {"id": "a"}, GOOD | {"id": "b"}, GOOD | {"id": "a"})
    assert run(source, tmp_path / "out", "--id-column", "id") == 1
    assert "row 3, column id: identifier 'a' is used twice" in capsys.readouterr().err


def test_invalid_utf8_in_parquet(tmp_path, capsys):
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"good", b"b\xffad"]).buffers())
    pq.write_table(pa.table({"question": bad, "answer": ["1", "2"], "target": [None, "t"]}), tmp_path / "bad.parquet")
    assert run(tmp_path / "bad.parquet", tmp_path / "out") == 1
    assert "bad.parquet, row 1, column question: not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"not parquet"),
        ("a.json", b'[{"question": "1"}, {'),
        ("a.json", b'[{"question": ' + b"[" * 100_000),
        ("a.csv", b'question,answer\n"' + b"x" * 2000),
        ("a.txt", b""),
    ],
)
def test_unreadable_file_ends_the_run_even_when_skipping(tmp_path, capsys, name, content):
    (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name, tmp_path / "out", "--on-error", "skip", "--max-field-bytes", "100") == 1
    assert name in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_missing_input(tmp_path, capsys):
    for name in (tmp_path / "none.jsonl", tmp_path):
        assert run(name, tmp_path / "out") == 1
        assert str(name) in capsys.readouterr().err
    assert run("", tmp_path / "out") == 1
    assert "--input is an empty name" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    path = tmp_path / f"train.{kind}"
    if kind == "json":
        path.write_text(json.dumps([GOOD] * 3, indent=1))
    elif kind == "jsonl":
        path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([json.dumps(GOOD).encode()] * 3))
    elif kind == "csv":
        path.write_text("question,answer,target\n" + '1+1?,2,"<think>1+1=2\n</think>\\boxed{2}"\n' * 3)
    else:
        pq.write_table(pa.Table.from_pylist([GOOD] * 3), path)
    assert [record.value for record in read_file(path)] == [GOOD] * 3


def test_a_folder_gives_its_splits(tmp_path):
    for name in (
        "train-00000-of-00002.jsonl",
        "train-00001-of-00002.jsonl",
        "latest.jsonl",
        "test.jsonl",
        ".train.tmp.jsonl",
    ):
        lines(tmp_path / name, GOOD)
    found = {source.split: [path.name for path in source.files] for source in find([str(tmp_path)], ("train", "test"))}
    assert found == {"train": ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"], "test": ["test.jsonl"]}
    assert find([str(tmp_path / "latest.jsonl")], ("train", "test"))[0].split == "train"


def test_a_hub_data_set_is_read_by_the_loader_of_datasets(tmp_path):
    """The loader accepts a folder in place of a hub id."""
    lines(tmp_path / "train.jsonl", GOOD, GOOD | {"question": "x" * 200})
    lines(tmp_path / "test.jsonl", GOOD)
    train, missing = (Source(split, hub=str(tmp_path)) for split in ("train", "validation"))
    assert [record.value for record in train.records()] == [GOOD, GOOD | {"question": "x" * 200}]
    assert [record.error and record.error.column for record in train.records(None, 100)] == [None, "question"]
    with pytest.raises(DataError, match=r"cannot load its split 'validation'.*--split"):
        list(missing.records())
    (tmp_path / "train.jsonl").write_bytes(b'{"question": \n')
    with pytest.raises(DataError, match=r"hub:.* cannot load its split 'train'.*JSON parse error"):
        list(train.records())


def test_same_input_and_flags_same_bytes(tmp_path, tokenizer):
    source = lines(tmp_path / "data.jsonl", *(GOOD | {"question": f"{i % 50}+1?"} for i in range(3000)), b"{")
    flags = ("--on-error", "skip", "--dedup", "--limit", "20", "--verify", "--tokenizer", tokenizer, "--seed", "5")
    for name in ("a", "b"):
        assert run(source, tmp_path / name, *flags) == 0
    for file in ("train.parquet", "stats.json", "rejected.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert run(source, tmp_path / "c", *flags[:-1], "6") == 0
    assert questions(tmp_path / "a") != questions(tmp_path / "c")


def test_limit_keeps_the_first_rows_or_a_sample(tmp_path):
    source = lines(tmp_path / "data.jsonl", *(GOOD | {"question": f"{i}+1?"} for i in range(2500)))
    assert run(source, tmp_path / "first", "--limit", "10") == 0
    assert questions(tmp_path / "first") == [f"{i}+1?" for i in range(10)]
    assert run(source, tmp_path / "sample", "--limit", "10", "--seed", "1") == 0
    sampled = [int(question.split("+")[0]) for question in questions(tmp_path / "sample")]
    assert len(sampled) == 10 and sampled == sorted(sampled) and max(sampled) > 100
    assert summary(tmp_path / "sample")["left_out"] == {"not_sampled": 2490}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 7), max_size=8), st.integers(1, 12), st.integers())
def test_a_sample_has_the_size_asked_for_and_the_order(sizes, size, seed):
    sample, made, out = Sample(size, seed), 0, 0
    for count in sizes:
        out += sample.offer([Row("s", [("user", "q")], None, "1", made + i, "train") for i in range(count)])
        made += count
    indices = [row.index for row in sample.rows()]
    assert len(indices) == min(size, made) == made - out
    assert indices == sorted(set(indices))


def test_dedup_ignores_case_and_white_space(tmp_path):
    source = lines(
        tmp_path / "data.jsonl", *(GOOD | {"question": q} for q in ("What  is\n1?", "what is 1?", "What is 2?"))
    )
    assert run(source, tmp_path / "out", "--dedup") == 0
    assert questions(tmp_path / "out") == ["What  is\n1?", "What is 2?"]


def test_verify_removes_the_row_or_the_target(tmp_path):
    records = (
        GOOD,
        GOOD | {"target": "<think>1+1=3\n</think>\\boxed{3}"},
        GOOD | {"target": None},
        GOOD | {"target": "two"},
    )
    source = lines(tmp_path / "data.jsonl", *records)
    assert run(source, tmp_path / "row", "--verify") == 0
    assert summary(tmp_path / "row")["left_out"] == {"demonstration_failed": 2}
    assert run(source, tmp_path / "target", "--verify", "target") == 0
    assert (summary(tmp_path / "target")["kept"], summary(tmp_path / "target")["demonstrations"]) == (4, 1)
    assert summary(tmp_path / "target")["demonstrations_removed"] == 2


def test_a_demonstration_that_is_removed_is_said_and_listed(tmp_path, capsys):
    wrong = "<think>1+1=3\n</think>\\boxed{3}"
    records = [GOOD, GOOD | {"target": wrong}, GOOD | {"target": None}, GOOD | {"target": "two"}]
    source, out = lines(tmp_path / "data.jsonl", *records, b"{"), tmp_path / "out"
    assert run(source, out, "--verify", "target", "--on-error", "skip", "--quiet") == 0
    assert capsys.readouterr().out == (
        f"{out}/train.parquet: 4 of 5 rows kept, 1 with a demonstration; left out: 1 malformed_json; removed 2 "
        f"demonstrations without the right answer (--verify), which {out}/rejected.jsonl lists\n"
    )
    listed = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    places = {(entry["left_out"], entry["row"], entry["reason"], entry["excerpt"]) for entry in listed}
    failed = "demonstration_failed"
    assert places == {("row", 5, "malformed_json", "{"), ("target", 2, failed, wrong), ("target", 4, failed, "two")}
    assert all("against ground truth '2'" in entry["problem"] for entry in listed if entry["left_out"] == "target")
    assert run(lines(tmp_path / "good.jsonl", GOOD), tmp_path / "good", "--verify", "target", "--quiet") == 0
    assert "removed" not in capsys.readouterr().out


def test_a_row_without_an_answer_is_no_wrong_flag(tmp_path, capsys):
    bare = {"question": "2+2?", "solution": "4"}
    source = lines(tmp_path / "train.jsonl", GOOD, GOOD, GOOD, bare)
    said = "row 4, column answer: this row has no answer, though other rows do (it has: question, solution); fill it in"
    message = refused(capsys, "--input", source, "--output", tmp_path / "out")
    assert said in message and message.endswith("or leave such rows out with --on-error skip\n")
    assert run(source, tmp_path / "out", "--on-error", "skip") == 0
    assert summary(tmp_path / "out")["left_out"] == {"missing_column": 1}
    # The first row of the file may be the one.
    assert "row 1, column answer: this row has no answer" in refused(
        capsys, "--input", lines(tmp_path / "train.jsonl", bare, GOOD), "--output", tmp_path / "o"
    )


@pytest.mark.parametrize("flag", ["--question-column", "--answer-column"])
def test_a_column_that_no_row_has_is_a_wrong_flag(tmp_path, capsys, flag):
    source = lines(tmp_path / "train.jsonl", GOOD | {"meta": {"a": "2"}}, GOOD | {"meta": None})
    given = ("--input", source, "--output", tmp_path / "out", "--on-error", "skip", flag)
    there = "question, answer, target, meta"
    said = f"train.jsonl, column anwser: no row has this column (there are: {there}); name it with {flag}"
    assert said in refused(capsys, *given, "anwser")
    # A row whose `meta` is null may be the faulty one.
    assert "none of 2 rows is left (2 missing_column)" in refused(capsys, *given, "meta.b.c")


def test_a_split_whose_file_lacks_the_column_is_named(tmp_path, capsys):
    lines(tmp_path / "train.jsonl", GOOD)
    lines(tmp_path / "test.jsonl", {"question": "2?", "final": "2"})
    message = refused(capsys, "--input", tmp_path, "--output", tmp_path / "out")
    assert "test.jsonl, column answer: no row has this column (there are: question, final)" in message


@pytest.mark.parametrize(
    ("value", "kind"),
    [(17, "a number"), (1.5, "a number"), (True, "true or false"), ({"a": 1}, "an object")],
)
def test_a_question_that_is_no_text_is_told_what_it_is(tmp_path, capsys, value, kind):
    source = lines(tmp_path / "train.jsonl", GOOD, GOOD | {"question": value})
    message = refused(capsys, "--input", source, "--output", tmp_path / "out")
    assert f"row 2, column question: {kind}, not text; write text or [" in message


def test_a_malformed_line_is_named_and_shown(tmp_path, capsys):
    bad = b'{"question": "61?", "answer": "2", "target": }'
    source = lines(tmp_path / "train.jsonl", *[GOOD] * 60, bad, GOOD)
    message = refused(capsys, "--input", source, "--output", tmp_path / "out")
    assert message.endswith(
        f"train.jsonl, row 61: line 61 is not JSON (Expecting value at character 46): {bad.decode()}; write one JSON "
        "object a line\n"
    )
    assert run(source, tmp_path / "out", "--on-error", "skip") == 0
    (entry,) = map(json.loads, (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    assert (entry["row"], entry["excerpt"]) == (61, bad.decode())
    cut = lines(tmp_path / "train.jsonl", GOOD, b'{"question": "' + b"x" * 500)
    message = refused(capsys, "--input", cut, "--output", tmp_path / "o")
    assert "line 2 is not JSON (Unterminated string starting at character 14): {" in message and "xxx...; " in message
    message = refused(capsys, "--input", lines(tmp_path / "train.jsonl", GOOD, b"[1, 2]"), "--output", tmp_path / "o")
    assert "row 2: a list, not an object: [1, 2]; write one JSON object a line" in message


def test_a_malformed_json_file_shows_where(tmp_path, capsys):
    (tmp_path / "train.json").write_text(f'[{json.dumps(GOOD)},\n{{"question": 1?}}]')
    message = refused(capsys, "--input", tmp_path / "train.json", "--output", tmp_path / "out")
    assert "train.json, row 2: not JSON (Expecting ',' delimiter): {\"question\": 1?}]" in message


def test_decontaminate(tmp_path):
    shared = "a train leaves the city at noon and drives two hundred miles to the east before it stops"
    evaluation = lines(tmp_path / "test.jsonl", {"problem": f"Suppose {shared}. When?"}, {"problem": "7-2=?"})
    source = lines(
        tmp_path / "train.jsonl",
        GOOD | {"question": f"Now {shared.upper()}, how far?"},
        GOOD | {"question": "7+2=?"},
        GOOD | {"question": "7-2=? "},
        GOOD | {"question": "a train leaves the city at noon"},
    )
    assert run(source, tmp_path / "out", "--decontaminate", evaluation) == 0
    assert questions(tmp_path / "out") == ["7+2=?", "a train leaves the city at noon"]
    assert summary(tmp_path / "out")["left_out"] == {"contaminated": 2}


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40), st.integers(0, 39), st.integers(1, 5))
def test_any_n_consecutive_words_are_found(words, start, n):
    index = NGramIndex(n)
    index.add("evaluation", [" ".join(words)])
    piece = words[start : start + n]
    if len(piece) == n:
        assert index.overlap(f"xyz {' '.join(piece)} uvw") == "evaluation"
    assert index.overlap("xyz " * (n + 1)) is None


def test_token_limits_drop_rows_and_never_truncate(tmp_path, tokenizer):
    out = tmp_path / "out"
    limits = ["--max-prompt-tokens", "350", "--max-target-tokens", "120"]
    arguments = ["--input", str(GSM8K / "train.jsonl"), "--output", str(out), "--tokenizer", tokenizer]
    assert main(gsm8k.GSM8K, [*arguments[:-2], "--tokenizer", tokenizer]) == 0
    every = {row["prompt"][-1]["content"]: row["target"] for row in pq.read_table(out / "train.parquet").to_pylist()}
    assert main(gsm8k.GSM8K, [*arguments, *limits]) == 0
    kept = pq.read_table(out / "train.parquet").to_pylist()
    counts = summary(out)
    assert 0 < len(kept) < len(every) and set(counts["left_out"]) == {"prompt_too_long", "target_too_long"}
    assert counts["length_unit"] == "tokens" and counts["target_length"]["max"] <= 120
    assert all(every[row["prompt"][-1]["content"]] == row["target"] for row in kept)


def test_tokens_are_counted_as_training_counts_them(tokenizer):
    counter = TokenCounter.load(tokenizer)
    chat = [("system", "be brief"), ("user", "Natalia sold clips")]
    messages = [{"role": role, "content": content} for role, content in chat]
    ids = counter._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert counter.prompts([chat]) == [len(ids)]
    target = "<think>48/2=24\n</think>\\boxed{72}"
    ids = counter._tokenizer(target, add_special_tokens=False)["input_ids"]
    assert counter.targets([target, None]) == [len(ids) + 1, 0]


def test_a_chat_template_that_rejects_the_prompt(tmp_path, tokenizer, capsys):
    folder = tmp_path / "no-system"
    shutil.copytree(tokenizer, folder)
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}user: "
    (folder / "chat_template.jinja").write_text(refusal)
    source = lines(tmp_path / "data.jsonl", GOOD)
    assert run(source, tmp_path / "out", "--tokenizer", str(folder), "--template", "think") == 1
    error = capsys.readouterr().err
    assert "rejects a prompt (no system role)" in error and error.count("\n") == 1
    assert run(source, tmp_path / "out", "--tokenizer", str(folder)) == 0


def test_limits_without_a_tokenizer(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, tmp_path, "--max-target-tokens", "10")
    assert "give --tokenizer" in capsys.readouterr().err


def test_a_tokenizer_that_is_not_there(tmp_path, capsys):
    source = lines(tmp_path / "data.jsonl", GOOD)
    assert run(source, tmp_path / "out", "--tokenizer", str(tmp_path)) == 1
    assert "the tokenizer cannot be loaded" in capsys.readouterr().err


def small_files() -> None:
    """Make every write beyond 64 KiB fail, as on a full disk. Python ignores the signal and raises an OSError."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))


def test_a_disk_that_fills_up_damages_nothing(tmp_path):
    rng = random.Random(0)
    noise = [GOOD | {"question": f"{i}?", "target": rng.randbytes(200).hex()} for i in range(4000)]
    source = lines(tmp_path / "data.jsonl", *noise)
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.parquet").write_bytes(b"before")
    command = [sys.executable, "-m", "data_preprocess.jsonl", "--input", source, "--output", str(out)]
    done = subprocess.run(
        [*command, "--target-column", "target"], preexec_fn=small_files, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "the file size limit is reached" in done.stderr and "are unchanged" in done.stderr
    assert [path.name for path in out.iterdir()] == ["train.parquet"]
    assert (out / "train.parquet").read_bytes() == b"before"


def test_a_full_disk_is_named(tmp_path):
    from data_preprocess.output import explain

    assert "the disk is full" in explain(OSError(errno.ENOSPC, "x"), tmp_path).strerror


def test_no_thread_outlives_a_run_that_ends_early(tmp_path, tokenizer):
    before = set(threading.enumerate())
    source = lines(tmp_path / "data.jsonl", *(GOOD for _ in range(20_000)), b"{")
    assert run(source, tmp_path / "limit", "--tokenizer", tokenizer, "--limit", "10") == 0
    assert len(questions(tmp_path / "limit")) == 10
    assert set(threading.enumerate()) <= before
    source = lines(tmp_path / "bad.jsonl", b"{", *(GOOD for _ in range(20_000)))
    assert run(source, tmp_path / "bad", "--tokenizer", tokenizer) == 1
    assert set(threading.enumerate()) <= before


def test_read_ahead_raises_the_producers_fault_and_ends_when_abandoned():
    def items():
        yield 1
        raise DataError(Reason.UNREADABLE, "gone")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(DataError, match="gone"):
        next(ahead)
    endless = read_ahead(iter(int, 1))
    assert next(endless) == 0
    endless.close()


def refused(capsys, *arguments) -> str:
    """Return the one line with which a command ends."""
    assert main(jsonl.JSONL, list(map(str, arguments))) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


CHAT = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "It is \\boxed{2}."}]


def test_an_answer_in_the_question_column_is_a_fault(tmp_path, capsys):
    source = lines(tmp_path / "train.jsonl", {"messages": CHAT, "answer": "2"})
    arguments = ("--input", source, "--output", tmp_path / "out", "--question-column", "messages")
    assert "the last message is the assistant's" in refused(capsys, *arguments)
    assert not list((tmp_path / "out").glob("*.parquet"))
    system = [{"role": "user", "content": "1+1?"}, {"role": "system", "content": "2"}]
    source = lines(tmp_path / "train.jsonl", {"messages": system, "answer": "2"})
    assert "the last message is the system's" in refused(capsys, *arguments)


def test_a_chat_with_its_answer_gives_prompt_and_demonstration(tmp_path):
    earlier = [{"role": "user", "content": "0+1?"}, {"role": "assistant", "content": "1"}]
    source = lines(tmp_path / "train.jsonl", {"messages": earlier + CHAT, "answer": "2"})
    flags = ["--question-column", "messages", "--target-column", "messages"]
    assert main(jsonl.JSONL, ["--input", source, "--output", str(tmp_path / "out"), *flags]) == 0
    (row,) = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [message["content"] for message in row["prompt"]] == ["0+1?", "1", "1+1?"]
    assert row["target"] == [{"role": "assistant", "content": "It is \\boxed{2}."}]


def test_a_chat_written_as_json_is_a_chat(tmp_path, capsys):
    good = {"question": json.dumps(CHAT[:1]), "answer": "2", "target": json.dumps(CHAT[1:])}
    assert run(lines(tmp_path / "train.jsonl", good), tmp_path / "out") == 0
    (row,) = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert row["prompt"] == CHAT[:1] and row["target"] == CHAT[1:]
    for text in (str(CHAT[:1]), json.dumps(CHAT[:1])[:-3]):
        source = lines(tmp_path / "train.jsonl", good | {"question": text})
        message = refused(capsys, "--input", source, "--output", tmp_path / "o")
        assert "column question: not a list of messages" in message


@pytest.mark.parametrize("flag", ["--target-column", "--level-column", "--id-column"])
def test_a_misspelt_column_is_named(tmp_path, capsys, flag):
    source = lines(tmp_path / "train.jsonl", GOOD)
    message = refused(capsys, "--input", source, "--output", tmp_path / "out", flag, "taget")
    assert f"column taget: no row has this column (there are: question, answer, target); correct {flag}" in message


def test_an_output_that_is_a_file_is_said_to_be_one(tmp_path, capsys):
    source = lines(tmp_path / "train.jsonl", GOOD)
    for output in (source, f"{source}/folder"):
        message = refused(capsys, "--input", source, "--output", output)
        assert message.strip() == f"error: {output}: a file is there; --output takes a folder"


def test_columns_that_no_flag_names_are_said(tmp_path, capsys):
    source = lines(tmp_path / "train.jsonl", GOOD | {"meta": {"level": 3, "page": 1}, "origin": "a book"})
    assert run(source, tmp_path / "out") == 0
    assert capsys.readouterr().err == "not used, because no flag names them: meta, origin\n"
    assert run(source, tmp_path / "out", "--level-column", "meta.level", "--id-column", "origin") == 0
    assert capsys.readouterr().err == ""


def test_a_column_that_some_rows_have_is_not_misspelt(tmp_path):
    source = lines(tmp_path / "train.jsonl", {"question": "2+1?", "answer": "3"}, GOOD)
    assert run(source, tmp_path / "out") == 0
    assert summary(tmp_path / "out")["demonstrations"] == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
def test_an_empty_input_is_a_fault(tmp_path, capsys, name):
    (tmp_path / name).write_text("[]" if name.endswith("json") else "")
    assert "the input has no rows" in refused(capsys, "--input", tmp_path / name, "--output", tmp_path / "out")


def test_nothing_left_is_a_fault_and_says_why(tmp_path, capsys):
    source = lines(tmp_path / "train.jsonl", *({"question": "1?", "answer": answer, "l": 1} for answer in ("", "1")))
    arguments = ("--input", source, "--output", tmp_path / "out", "--level-column", "l", "--difficulty", "9")
    message = refused(capsys, *arguments, "--on-error", "skip")
    assert "none of 2 rows is left (1 no_ground_truth, 1 other_difficulty)" in message


@pytest.mark.parametrize("template", ["think", "boxed"])
def test_a_solution_in_the_answer_column(tmp_path, capsys, template):
    """The answer is what it marks; a text that marks none is no ground truth."""
    marked = GOOD | {"answer": "One and one\nis two.\n#### 2", "target": "One and one is two."}
    source = lines(tmp_path / "train.jsonl", marked)
    assert run(source, tmp_path / "out", "--template", template) == 0
    (row,) = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    if template == "think":
        assert row["target"][0]["content"].endswith("</think>\\boxed{2}")
    source = lines(tmp_path / "train.jsonl", GOOD | {"answer": "One and one\nis two."})
    message = refused(capsys, "--input", source, "--output", tmp_path / "o", "--template", template)
    assert "without a final answer" in message and "name the column with the final answer" in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("question,answer\n1,1 apples?,2\n", "row 2: 3 fields, and the header names 2"),
        ("question,answer\n1?\n", "row 2: 1 fields, and the header names 2"),
        ("question;answer\n1;2?;2\n", "row 2: 3 fields, and the header names 2"),
        ("question,answer,answer\n1?,2,3\n", "the header names answer twice"),
    ],
)
def test_a_csv_row_that_does_not_fit_its_header_is_a_fault(tmp_path, capsys, content, problem):
    (tmp_path / "a.csv").write_text(content)
    assert problem in refused(capsys, "--input", tmp_path / "a.csv", "--output", tmp_path / "out")


def test_json_lines_in_a_json_file_are_all_read(tmp_path, capsys):
    records = [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(3)]
    (tmp_path / "train.json").write_text("\n".join(map(json.dumps, records)) + "\n")
    assert main(jsonl.JSONL, ["--input", str(tmp_path / "train.json"), "--output", str(tmp_path / "out")]) == 0
    assert questions(tmp_path / "out") == ["0+1?", "1+1?", "2+1?"]
    (tmp_path / "train.json").write_text(json.dumps(records) + json.dumps(records))
    message = refused(capsys, "--input", tmp_path / "train.json", "--output", tmp_path / "o")
    assert "more text after the end of the array" in message


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_utf_16_is_named(tmp_path, capsys, suffix):
    (tmp_path / f"train.{suffix}").write_bytes('{"question": "1?", "answer": "1"}\n'.encode("utf-16"))
    message = refused(capsys, "--input", tmp_path / f"train.{suffix}", "--output", tmp_path / "out")
    assert "the text is UTF-16; save the file as UTF-8" in message


def test_the_question_is_not_its_own_answer(tmp_path, capsys):
    source = lines(tmp_path / "train.jsonl", GOOD)
    message = refused(
        capsys,
        "--input",
        source,
        "--output",
        tmp_path / "out",
        "--question-column",
        "answer",
        "--answer-column",
        "answer",
    )
    assert "--question-column and --answer-column both name answer" in message


def test_a_demonstration_of_several_turns_is_a_fault(tmp_path, capsys):
    source = lines(tmp_path / "train.jsonl", GOOD | {"target": CHAT + CHAT})
    assert "column target: 2 messages of the assistant" in refused(
        capsys, "--input", source, "--output", tmp_path / "out", "--target-column", "target"
    )


def test_layouts_that_people_have(tmp_path):
    """Other separators, compression, folders whose files name no split, and what `datasets` saves."""
    import bz2
    import gzip

    import datasets

    table = pa.Table.from_pylist([GOOD])
    json_line = json.dumps(GOOD) + "\n"
    (tmp_path / "semicolon.csv").write_text('question;answer;target\n"1+1?";2;\n')
    (tmp_path / "tab.tsv").write_text("question\tanswer\ttarget\n1+1?\t2\t\n")
    (tmp_path / "new.ndjson").write_text(json_line)
    (tmp_path / "zipped.jsonl.gz").write_bytes(gzip.compress(json_line.encode()))
    (tmp_path / "zipped.csv.bz2").write_bytes(bz2.compress(b"question,answer,target\n1+1?,2,\n"))
    with pa.output_stream(str(tmp_path / "zipped.json.zst"), compression="zstd") as stream:
        stream.write(json.dumps([GOOD]).encode())
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    (tmp_path / "parts").mkdir()
    pq.write_table(table, tmp_path / "parts" / "part-0.parquet")
    for number, source in enumerate(sorted(path for path in tmp_path.iterdir() if path.name != "parts")):
        assert run(source, tmp_path / f"out{number}") == 0, source
        assert questions(tmp_path / f"out{number}") == ["1+1?"], source
    assert run(tmp_path / "parts", tmp_path / "out", "--split", "train") == 0
    assert questions(tmp_path / "out") == ["1+1?"]


def test_a_saved_dictionary_of_data_sets_gives_its_splits(tmp_path):
    import datasets

    saved = {name: datasets.Dataset.from_list([GOOD | {"question": f"{name}?"}]) for name in ("train", "test")}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    assert run(tmp_path / "saved", tmp_path / "out") == 0
    assert questions(tmp_path / "out") == ["train?"]
    assert pq.read_table(tmp_path / "out" / "test.parquet").to_pylist()[0]["prompt"][0]["content"] == "test?"


def test_a_folder_without_a_split_says_how_to_name_it(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "in" / "part-0.parquet")
    assert "say with --split what part-0.parquet is" in refused(
        capsys, "--input", tmp_path / "in", "--output", tmp_path / "out"
    )


def test_damaged_compression_is_named(tmp_path, capsys):
    (tmp_path / "a.jsonl.gz").write_bytes(b"not gzip")
    assert "a.jsonl.gz: cannot be read" in refused(
        capsys, "--input", tmp_path / "a.jsonl.gz", "--output", tmp_path / "out"
    )


def test_a_number_becomes_the_text_that_a_person_writes(tmp_path):
    numbers = {0.00001: "0.00001", 2.0: "2", 12.50: "12.5", 1e3: "1000", -3e-7: "-0.0000003", 7: "7", 0.0: "0"}
    source = lines(tmp_path / "train.jsonl", *(GOOD | {"question": f"{n}?", "answer": n} for n in numbers))
    assert run(source, tmp_path / "out") == 0
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [row["reward_model"]["ground_truth"] for row in rows] == list(numbers.values())


def test_decimals_and_alternatives_are_ground_truths(tmp_path):
    from decimal import Decimal

    from verl_relift.rewards import grade

    table = pa.table({"question": ["a?", "b?"], "answer": pa.array([Decimal("12.50"), Decimal("100")])})
    pq.write_table(table, tmp_path / "train.parquet")
    assert main(jsonl.JSONL, ["--input", str(tmp_path / "train.parquet"), "--output", str(tmp_path / "out")]) == 0
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["12.5", "100"]
    source = lines(tmp_path / "train.jsonl", GOOD | {"answer": ["1/2", "0.5", "one half"]})
    assert run(source, tmp_path / "out") == 0
    truth = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()[0]["reward_model"]["ground_truth"]
    assert [grade(f"\\boxed{{{answer}}}", truth).correct for answer in ("0.50", "one half", "2")] == [True, True, False]
