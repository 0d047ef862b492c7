"""The check: it finds every kind of fault with its place, and passes fit files and the layouts of ReLIFT and LUFFY."""

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from data_preprocess import arithmetic, check, gsm8k
from data_preprocess.cli import main
from data_preprocess.output import write_rows
from verl_relift.data.check import check_files
from verl_relift.data.findings import Kind
from verl_relift.data.schema import Row, to_batch
from verl_relift.data.tokens import TokenCounter
from verl_relift.testing.tokenizer import make_tokenizer

GSM8K = Path(__file__).parents[2] / "data" / "gsm8k"


def row(i=0, **change) -> Row:
    values = {
        "data_source": "s",
        "prompt": [("user", f"question {i}?")],
        "target": f"<think>so {i}\n</think>\\boxed{{{i}}}",
        "ground_truth": str(i),
        "index": i,
        "split": "train",
    }
    return Row(**values | change)


def write(path: Path, *rows: Row) -> str:
    write_rows(path.parent, {path.name: rows})
    return str(path)


def with_column(path: Path, name: str, values) -> str:
    """Write two good rows with one column replaced or, for None, dropped."""
    table = pa.Table.from_batches([to_batch([row(0), row(1)])])
    position = table.column_names.index(name)
    table = table.remove_column(position) if values is None else table.set_column(position, name, [values])
    pq.write_table(table, path)
    return str(path)


def only(report, kind):
    (finding,) = [finding for finding in report.findings if finding.kind == kind]
    return finding.row, finding.column


def test_fit_files(tmp_path):
    arithmetic.main(["--output", str(tmp_path), "--train-size", "200", "--eval-size", "30", "--pretrain-size", "10"])
    start = time.monotonic()
    report = check_files([str(tmp_path / "train.parquet")], [str(tmp_path / "test.parquet")])
    assert report.ok and not report.findings
    assert time.monotonic() - start < 10
    train = report.files[1]
    assert (train.rows, train.demonstrations, train.verified) == (200, 200, 200)
    assert train.levels == {"easy": 40, "medium": 60, "hard": 40, "hardest": 60}


BAD_ROWS = {
    Kind.EMPTY_PROMPT: (row(1, prompt=[("user", "  ")]), "prompt"),
    Kind.NO_GROUND_TRUTH: (row(1, ground_truth=" "), "reward_model.ground_truth"),
    Kind.UNPARSABLE_GROUND_TRUTH: (row(1, ground_truth="t(0,4]", target=None), "reward_model.ground_truth"),
    Kind.UNANSWERABLE_GROUND_TRUTH: (row(1, ground_truth="\\frac{1", target=None), "reward_model.ground_truth"),
    Kind.ANSWER_IN_PROMPT: (row(1, prompt=[("user", "1?"), ("assistant", "1")]), "prompt"),
    Kind.DUPLICATE_PROMPT: (row(1, prompt=[("user", "Question  0?")]), "prompt"),
    Kind.FAILED_DEMONSTRATION: (row(1, ground_truth="2"), "target"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_row(tmp_path, capsys, kind):
    bad, column = BAD_ROWS[kind]
    file = write(tmp_path / "train.parquet", row(0), bad, row(2))
    report = check_files([file], allowed=())
    assert {finding.kind for finding in report.errors} == {kind}
    assert only(report, kind) == (1, column)
    assert check.main([file, "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert f"error: 1 {kind} in {file}" in printed and f"row 1, column {column}: " in printed
    assert check.main([file, "--quiet", "--allow", str(kind)]) == 0
    assert f"warning: 1 {kind}" in capsys.readouterr().out


def test_duplicate_id(tmp_path):
    file = write(tmp_path / "train.parquet", row(0, id="a"), row(1, id="b"), row(2, id="a"))
    assert only(check_files([file], allowed=()), Kind.DUPLICATE_ID) == (2, "extra_info.id")


def test_training_allows_what_it_filters(tmp_path):
    file = write(tmp_path / "train.parquet", row(0), row(1, ground_truth="2"), row(0))
    report = check_files([file])
    assert report.ok and {finding.kind for finding in report.warnings} == {
        Kind.FAILED_DEMONSTRATION,
        Kind.DUPLICATE_PROMPT,
    }


@pytest.mark.parametrize("column", ["prompt", "reward_model", "data_source"])
def test_missing_column(tmp_path, column):
    report = check_files([with_column(tmp_path / "train.parquet", column, None)])
    assert only(report, Kind.MISSING_COLUMN) == (None, column)


@pytest.mark.parametrize(
    ("column", "values", "place"),
    [
        ("prompt", pa.array(["text", "text"]), "prompt"),
        ("prompt", pa.array([[1], [2]]), "prompt"),
        ("target", pa.array([1, 2]), "target"),
        ("data_source", pa.array([1, 2]), "data_source"),
        ("reward_model", pa.array([{"ground_truth": {"a": 1}}] * 2), "reward_model.ground_truth"),
        ("reward_model", pa.array(['{"ground_truth": "1"}'] * 2), "reward_model"),
    ],
)
def test_wrong_type(tmp_path, column, values, place):
    report = check_files([with_column(tmp_path / "train.parquet", column, values)], demonstrations=False)
    found = [(finding.row, finding.column) for finding in report.errors if finding.kind == Kind.WRONG_TYPE]
    assert found == [(0, place), (1, place)]


def test_no_demonstrations(tmp_path):
    for file in (
        write(tmp_path / "a.parquet", row(0, target=None)),
        with_column(tmp_path / "b.parquet", "target", None),
        with_column(tmp_path / "c.parquet", "target", pa.array([None, " "])),
    ):
        assert only(check_files([file]), Kind.NO_DEMONSTRATIONS) == (None, "target")
        assert check_files([file], demonstrations=False).ok
        assert check_files([write(tmp_path / "t.parquet", row(5))], [file]).ok


def test_unreadable_and_empty(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing PAR1")
    report = check_files(
        [str(tmp_path / "bad.parquet"), str(tmp_path / "none.parquet"), write(tmp_path / "empty.parquet")]
    )
    assert [finding.kind for finding in report.errors] == [Kind.UNREADABLE, Kind.UNREADABLE, Kind.NO_ROWS]


def test_overlap_of_train_and_validation(tmp_path):
    long = "a farmer has so many hens and ducks that nobody in the village ever counted all of them"
    train = write(tmp_path / "train.parquet", row(0), row(1), row(2, prompt=[("user", f"Well, {long}. How many?")]))
    test = write(tmp_path / "test.parquet", row(7), row(1), row(9, prompt=[("user", f"Once {long}!")]))
    report = check_files([train], [test], allowed=())
    assert [(f.file, f.row, f.column) for f in report.errors] == [(train, 1, "prompt"), (train, 2, "prompt")]
    assert check.main([train, test, "--quiet"]) == 1


def test_validation_answer_that_cannot_be_read_does_not_stop_training(tmp_path):
    file = write(tmp_path / "test.parquet", row(0, ground_truth="whatever \\frac{", target=None, split="test"))
    report = check_files([write(tmp_path / "train.parquet", row(1))], [file])
    assert report.ok and [finding.kind for finding in report.warnings] == [Kind.UNPARSABLE_VALIDATION_ANSWER]


def test_token_limits_json_and_picture(tmp_path, capsys):
    texts = (GSM8K / "train.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer = str(make_tokenizer(tmp_path / "tokenizer", texts, 600))
    assert main(gsm8k.GSM8K, ["--input", str(GSM8K), "--output", str(tmp_path)]) == 0
    file = str(tmp_path / "train.parquet")
    capsys.readouterr()
    limits = ["--max-prompt-tokens", "350", "--max-target-tokens", "150", "--token-sample", "all"]
    arguments = [file, "--tokenizer", tokenizer, *limits, "--json", "--quiet", "--stats", str(tmp_path / "lengths.png")]
    assert check.main(arguments) == 1
    printed = json.loads(capsys.readouterr().out)
    (summary,) = printed["files"]
    assert not printed["ok"] and set(summary["faults"]) == {"prompt_too_long", "target_too_long"}
    assert sum(summary["faults"].values()) == len(printed["errors"])
    assert all(error["file"] == file and error["row"] is not None and error["remedy"] for error in printed["errors"])
    assert summary["measured"] == 200 and summary["length_unit"] == "tokens"
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
    report = check_files([file], tokenizer=tokenizer, token_sample=50, max_prompt_tokens=350)
    assert report.files[0].counts[Kind.PROMPT_TOO_LONG] == summary["faults"]["prompt_too_long"]
    assert len(report.files[0].prompts) == 50 and report.files[0].graded == 200
    assert "50 rows, evenly spaced" in report.table()


def test_many_faults_are_counted_and_some_shown(tmp_path):
    file = write(tmp_path / "train.parquet", *(row(i, ground_truth="-1") for i in range(1200)), row(1200))
    report = check_files([file], allowed=())
    assert report.files[0].counts[Kind.FAILED_DEMONSTRATION] == 1200 and len(report.errors) == 1000
    assert "... 1,195 more; --json lists 1,000 of them" in report.table() and len(report.table().splitlines()) < 15


def test_the_flag_that_the_report_names_lists_the_rest(tmp_path, capsys):
    file = write(tmp_path / "train.parquet", *(row(i, ground_truth="-1") for i in range(96)), row(96))
    assert check.main([file, "--quiet"]) == 1
    assert "... 91 more; --json lists them" in capsys.readouterr().out
    assert check.main([file, "--quiet", "--json"]) == 1
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert {error["row"] for error in errors if error["kind"] == "failed_demonstration"} == set(range(96))


@pytest.mark.parametrize(
    "target",
    [
        [{"content": "<think>x\n</think>\\boxed{4}", "role": "assistant"}],
        "<think>x\n</think>\\boxed{4}",
        None,
    ],
)
@pytest.mark.parametrize("truth", ["4", ["4"]])
def test_files_of_relift_and_luffy_pass_and_load_unchanged(tmp_path, target, truth):
    import datasets

    record = {
        "data_source": "openr1",
        "prompt": [{"content": "system", "role": "system"}, {"content": "2+2?", "role": "user"}],
        "target": target,
        "ability": "math",
        "reward_model": {"ground_truth": truth, "style": "rule"},
        "extra_info": {"index": -1, "split": "default"},
    }
    path = tmp_path / "openr1.parquet"
    pq.write_table(pa.Table.from_pylist([record]), path)
    report = check_files([str(path)], demonstrations=target is not None, allowed=())
    assert report.ok, report.table()
    assert report.files[0].demonstrations == (target is not None)
    loaded = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded[0]["prompt"] == record["prompt"] and loaded[0]["target"] == target


def test_ground_truths_for_another_reward_function_may_be_anything(tmp_path):
    """The project's own grader asks for mathematics, and demonstrations are verified by the function that grades."""
    path = with_column(tmp_path / "train.parquet", "reward_model", [{"ground_truth": {"tests": ["f(1)==2"]}}] * 2)
    assert {finding.kind for finding in check_files([path]).errors} == {Kind.WRONG_TYPE}
    report = check_files([path], mathematics=False)
    assert report.ok and report.files[0].graded == 0
    null = with_column(
        tmp_path / "null.parquet",
        "reward_model",
        pa.array([{"ground_truth": None}] * 2, pa.struct([("ground_truth", pa.string())])),
    )
    assert {f.kind for f in check_files([null], mathematics=False).errors} >= {Kind.NO_GROUND_TRUTH}


@pytest.mark.parametrize("truth", ['{"city": "Oslo", "year": [1, 2]}', "assert f(1) == 2\nassert f(2) == 3", "yes?"])
def test_the_command_takes_ground_truths_for_an_own_reward_function(tmp_path, capsys, truth):
    file = write(tmp_path / "train.parquet", *(row(i, ground_truth=truth, target=f"a solution {i}") for i in range(3)))
    assert check.main([file, "--quiet"]) == 1
    refused = capsys.readouterr().out
    assert "NOT fit to train on" in refused and "--own-reward" in refused
    assert check.main([file, "--quiet", "--own-reward"]) == 0
    accepted = capsys.readouterr().out.splitlines()
    assert accepted[-2].startswith("fit to train on: 0 errors, 0 warnings") and "verl_relift.grade" in accepted[-1]
    assert check.main([file, "--quiet", "--own-reward", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["graded"] == 0


def test_files_for_validation_alone_are_fit_to_evaluate_on(tmp_path, capsys):
    train, test = write(tmp_path / "train.parquet", row(0)), write(tmp_path / "test.parquet", row(1, split="test"))
    empty = write(tmp_path / "val.parquet")
    for files, verdict in (
        ([test], "fit to evaluate on"),
        ([train, test], "fit to train on"),
        ([train], "fit to train on"),
        ([empty], "NOT fit to evaluate on"),
    ):
        check.main([*files, "--quiet"])
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"{verdict}: ")


def test_a_column_without_a_single_right_answer_is_not_the_demonstrations(tmp_path):
    path = with_column(tmp_path / "train.parquet", "ability", ["algebra", "geometry"])
    (error,) = check_files([path], column="ability").errors
    assert error.kind == Kind.NO_RIGHT_DEMONSTRATION and error.column == "ability"
    assert "none of 2 graded demonstrations gives the ground truth" in error.problem
    assert "reward.custom_reward_function.path=FILE" in str(error) and "docs/own-reward.md" in str(error)
    assert check_files([path], column="ability", demonstrations=False).ok


@pytest.mark.parametrize("opened", ["", "<think>", "<think>\\n", "<reason>"])
def test_targets_with_a_thought_are_fit_whatever_the_prompt_opens(tmp_path, opened):
    report = check_files([write(tmp_path / "train.parquet", row())], tokenizer=counter(tmp_path, opened))
    assert report.ok and report.files[0].verified == 1


def test_targets_without_a_thought_are_not_fit_where_the_prompt_opens_one(tmp_path):
    file = write(tmp_path / "train.parquet", row(target="0. \\boxed{0}"))
    assert check_files([file], tokenizer=counter(tmp_path / "plain", "")).ok
    errors = check_files([file], tokenizer=counter(tmp_path / "opened", "<think>")).errors
    problems = {error.kind: error.problem for error in errors}
    assert "which they must close before they answer" in problems.pop(Kind.NO_RIGHT_DEMONSTRATION)
    assert "never closes it with </think>" in problems.pop(Kind.FOREIGN_FORMAT) and not problems


def test_a_demonstration_in_another_chat_format_is_not_fit(tmp_path):
    file = write(tmp_path / "train.parquet", row(0), row(1, target="<|im_start|>assistant\n1. \\boxed{1}<|im_end|>"))
    report = check_files([file], tokenizer=counter(tmp_path / "plain", ""))
    assert not report.ok and only(report, Kind.FOREIGN_FORMAT) == (1, "target")


def test_a_thought_that_nothing_asks_for_is_a_warning(tmp_path):
    file = write(tmp_path / "train.parquet", row(target="<think>Half of 0.</think>\\boxed{0}"))
    report = check_files([file], tokenizer=counter(tmp_path / "plain", ""))
    assert report.ok and {finding.kind for finding in report.warnings} == {Kind.UNASKED_THOUGHT}


def counter(folder: Path, opened: str) -> TokenCounter:
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(folder, ["question 0?"], 300))
    tokenizer.chat_template += opened
    return TokenCounter(tokenizer)


def test_a_demonstration_inside_its_prompt_is_found(tmp_path):
    solution = "Half of the apples are red, so there are 1 red and 1 green: \\boxed{1}"
    file = write(tmp_path / "train.parquet", row(0), row(1, prompt=[("user", f"1? {solution}")], target=solution))
    report = check_files([file])
    assert not report.ok and only(report, Kind.ANSWER_IN_PROMPT) == (1, "prompt")


def test_a_role_that_is_not_the_users_name_is_named(tmp_path):
    file = write(tmp_path / "train.parquet", row(0), row(1, prompt=[("human", "1?")]))
    [error] = check_files([file]).errors
    assert "the last message has the role 'human', not user" in str(error) and "row 1" in str(error)


def test_one_file_for_training_and_validation(tmp_path):
    file = write(tmp_path / "train.parquet", row(0, target=None))
    (tmp_path / "link.parquet").symlink_to(file)
    for other in (file, str(tmp_path / "link.parquet")):
        report = check_files([file], [other], allowed=())
        kinds = {finding.kind for finding in report.errors}
        assert {Kind.OVERLAP, Kind.NO_DEMONSTRATIONS} <= kinds, kinds


def test_repeated_validation_rows_and_unreadable_answers_are_warnings(tmp_path, capsys):
    """The authors' validation files repeat each question of AIME and AMC."""
    rows = [
        row(i % 3, split="test", target=None, ground_truth="t(0,4]" if i % 3 == 2 else str(i % 3)) for i in range(24)
    ]
    file = write(tmp_path / "valid.parquet", *rows)
    assert check.main([file, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "warning: 21 repeated_validation_question" in printed and "\nfit to evaluate on: 0 errors" in printed
    assert "8 unparsable_validation_answer" in printed


def test_files_that_cannot_be_read_together(tmp_path):
    one = write(tmp_path / "one.parquet", row(0))
    other = with_column(tmp_path / "other.parquet", "extra_info", pa.array([{"index": "0", "split": "train"}] * 2))
    report = check_files([one, other])
    (finding,) = [finding for finding in report.errors if finding.kind == Kind.SCHEMAS_DIFFER]
    assert finding.file == other and "extra_info" in finding.problem and one in finding.problem
    assert check_files([one], [other]).ok, "training and validation are data sets of their own"
    plain = with_column(tmp_path / "plain.parquet", "target", pa.nulls(2))
    assert not any(finding.kind == Kind.SCHEMAS_DIFFER for finding in check_files([one, plain]).findings)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.string(), pa.string()),
        (pa.string(), pa.int64()),
        (pa.null(), pa.string()),
        (pa.list_(pa.string()), pa.list_(pa.int64())),
        (pa.struct([("a", pa.string())]), pa.struct([("a", pa.string()), ("b", pa.string())])),
        (pa.struct([("a", pa.string()), ("b", pa.int64())]), pa.struct([("b", pa.int64()), ("a", pa.string())])),
        (pa.int64(), pa.float64()),
        (pa.list_(pa.struct([("role", pa.string())])), pa.string()),
    ],
)
def test_schemas_are_compared_as_datasets_does(tmp_path, one, other):
    import datasets

    from verl_relift.data import schemas
    from verl_relift.data.findings import FileSummary, Report

    report = Report(frozenset())
    parts = []
    for name, kind in (("one", one), ("other", other)):
        file = str(tmp_path / f"{name}.parquet")
        pq.write_table(pa.table({"x": pa.nulls(1, kind)}), file)
        report.files.append(FileSummary(file, rows=1))
        parts.append(datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "cache")))
    schemas.compare(report)
    try:
        datasets.concatenate_datasets(parts)
    except (ValueError, TypeError, pa.ArrowException):
        assert not report.ok
    else:
        assert report.ok


def test_what_a_text_model_cannot_read(tmp_path):
    file = with_column(tmp_path / "train.parquet", "extra_info", pa.array(["{}", "{}"]))
    assert [f.column for f in check_files([file]).errors if f.kind == Kind.WRONG_TYPE] == ["extra_info"] * 2
    table = pa.Table.from_batches([to_batch([row(0), row(1)])])
    pq.write_table(table.append_column("images", pa.array([[b"png"], []])), tmp_path / "images.parquet")
    report = check_files([str(tmp_path / "images.parquet")])
    assert not report.ok and only(report, Kind.MEDIA) == (0, "images")
    pq.write_table(table.append_column("images", pa.array([[], []], pa.list_(pa.binary()))), tmp_path / "none.parquet")
    assert check_files([str(tmp_path / "none.parquet")]).ok


def test_a_file_of_long_prompts_only(tmp_path):
    counter = TokenCounter.load(str(make_tokenizer(tmp_path / "tokenizer", ["question 0?"] * 9, 300)))
    rows = [row(i, prompt=[("user", f"question {i}? " * (50 if i % 2 else 1))]) for i in range(8)]
    file = write(tmp_path / "train.parquet", *rows)
    assert check_files([file], tokenizer=counter, max_prompt_tokens=60).ok
    report = check_files([file], tokenizer=counter, max_prompt_tokens=2)
    (finding,) = report.errors
    assert finding.kind == Kind.ONLY_LONG_PROMPTS and "all 8 prompts are longer than 2 tokens" in finding.problem


def test_a_file_for_training_is_one_whatever_its_name_and_its_split_where_nothing_is_guessed(tmp_path):
    for name, split in (("test.parquet", "train"), ("train.parquet", "test")):
        file = write(tmp_path / name, row(0, target=None, split=split))
        assert check_files([file]).files[0].validation
        told = check_files([file], guess_validation=False)
        assert not told.files[0].validation and {one.kind for one in told.errors} == {Kind.NO_DEMONSTRATIONS}


@pytest.mark.parametrize("options", [[], ["--json"], ["--own-reward"]], ids=" ".join)
def test_a_file_that_is_not_there_ends_the_check_before_it_begins(tmp_path, capsys, options):
    train = write(tmp_path / "train.parquet", row(0))
    assert check.main([train, "missing.parquet", str(tmp_path), "--validation", "other.parquet", *options]) == 2
    printed = capsys.readouterr()
    lines = ["missing.parquet: no such file", f"{tmp_path}: a folder; name its files", "other.parquet: no such file"]
    assert printed.out == "" and printed.err.splitlines() == lines
