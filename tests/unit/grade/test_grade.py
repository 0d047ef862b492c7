"""The command that grades a file with a user's reward function, and the function of docs/own-reward.md."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_relift.grade import GradeError, main, read_answers

PAGE = Path(__file__).parents[3] / "docs/own-reward.md"


@pytest.fixture
def function(tmp_path) -> str:
    """The function of the page, in a file."""
    [code] = re.findall(r"```python\n# my_reward.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) <= 12
    (tmp_path / "my_reward.py").write_text(code)
    return f"reward.custom_reward_function.path={tmp_path}/my_reward.py"


def grade(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def write_jsonl(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_demonstrations_of_a_parquet_file_are_graded_with_the_page_s_function(tmp_path, function, capsys):
    rows = [
        {"data_source": "mine", "target": f"I add. The answer is {answer}", "extra_info": {"index": 0},
         "reward_model": {"style": "rule", "ground_truth": "7"}}
        for answer in (7, 8)
    ]  # fmt: skip
    rows.append({**rows[0], "target": None})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    status, out, err = grade(
        capsys, tmp_path / "train.parquet", "--show", 5, function, "reward.custom_reward_function.name=reward"
    )
    assert status == 0 and err == ""
    lines = out.splitlines()
    assert len(lines) == 7 and lines[0] == f"graded by reward of {tmp_path}/my_reward.py"
    assert lines[2].split()[1:3] == ["1.00", "7"] and lines[3].split()[1:3] == ["0.00", "7"]
    assert lines[4].startswith("2 graded: mean reward ") and lines[4].endswith(
        ", 1 right, 0 partial, 1 wrong (1 with a reward above 0)"
    )
    assert lines[5] == "1 rows of the file have no demonstration"
    assert lines[6].startswith("1 wrong answers (an empty one, ") and lines[6].endswith(
        ", 1 wrong (1 with a reward above 0)"
    )


def test_the_partial_function_of_the_page_needs_what_the_page_says(tmp_path, capsys):
    [code] = re.findall(r"```python\n# partial_reward.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "partial_reward.py").write_text(code)
    own = [
        f"reward.custom_reward_function.path={tmp_path}/partial_reward.py",
        "reward.custom_reward_function.name=reward",
    ]
    texts = ("It is 7", "It is 8", "I do not know")
    file = write_jsonl(tmp_path / "answers.jsonl", *({"response": text, "ground_truth": "7"} for text in texts))
    status, out, _ = grade(capsys, file, *own)
    assert status == 1 and "returned 0.5, which is neither 0 nor 1, and no acc" in out
    status, out, _ = grade(capsys, file, *own, "relift.reward.correct_from=1")
    assert status == 0 and out.endswith(
        "3 graded: mean reward 0.500, 1 right, 0 partial, 2 wrong (1 with a reward above 0)\n"
    )


PARTIAL = """
def reward(data_source, solution_str, ground_truth, extra_info):
    score = 1.0 if solution_str.endswith(ground_truth) else 0.5 if "answer" in solution_str else 0.0
    return {"score": score, "acc": ACC} if ACC is not None else score
"""


@pytest.mark.parametrize(
    ("acc", "correct_from", "status", "said"),
    [
        ("None", None, 1, "the reward function returned 0.5, which is neither 0 nor 1, and no acc: set relift.reward."),
        ("None", 1, 0, "mean reward 0.333, 0 right, 0 partial, 3 wrong (2 with a reward above 0)"),
        ("score >= 1", None, 0, "mean reward 0.333, 0 right, 0 partial, 3 wrong (2 with a reward above 0)"),
        ("score", None, 0, "mean reward 0.333, 0 right, 2 partial, 1 wrong"),
    ],
)
def test_wrong_answers_show_partial_scores_that_demonstrations_never_earn(
    tmp_path, capsys, acc, correct_from, status, said
):
    code = PARTIAL.replace("ACC}", f"{acc}}}").replace("ACC is", "score is" if acc != "None" else "None is")
    (tmp_path / "partial.py").write_text(code)
    rows = [
        {"data_source": "mine", "target": f"The answer is {answer}", "reward_model": {"ground_truth": str(answer)}}
        for answer in (7, 8)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    own = [f"reward.custom_reward_function.path={tmp_path}/partial.py", "reward.custom_reward_function.name=reward"]
    own += [f"relift.reward.correct_from={correct_from}"] if correct_from else []
    ended, out, _ = grade(capsys, tmp_path / "train.parquet", *own)
    lines = out.splitlines()
    assert ended == status and said in lines[-1] and lines[-3].endswith("2 right, 0 partial, 0 wrong")


@pytest.mark.parametrize(
    "row",
    [
        {"response": "\\boxed{7}", "ground_truth": "7"},
        {"input": "3+4?", "output": "\\boxed{7}", "gts": "7", "score": 1.0, "step": 3},
        {"response": "\\boxed{7}", "ground_truth": "7", "source": "a", "outcome": "correct"},
    ],
    ids=["own", "validation", "evaluation"],
)
def test_answers_of_every_jsonl_file_are_graded_with_the_package_s_function_by_default(tmp_path, row, capsys):
    file = write_jsonl(tmp_path / "answers.jsonl", row)
    status, out, _ = grade(capsys, file)
    assert status == 0 and out.splitlines()[-1] == "1 graded: mean reward 1.000, 1 right, 0 partial, 0 wrong"
    assert out.splitlines()[0] == "graded by the built-in grader"


@pytest.mark.parametrize(
    ("settings", "status", "said"),
    [
        (["method.demonstrations.column=solution"], 0, "1 graded: mean reward 1.000, 1 right, 0 partial, 0 wrong"),
        ([], 2, "no row has a demonstration in the column target (method.demonstrations.column)"),
        (["method=grpo"], 2, "no row has a demonstration in the column target"),
    ],
)
def test_demonstrations_are_read_from_the_column_that_training_reads(tmp_path, settings, status, said, capsys):
    row = {"solution": "\\boxed{7}", "reward_model": {"ground_truth": "7"}, "data_source": "a", "extra_info": {"i": 0}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "train.parquet")
    ended, out, err = grade(capsys, tmp_path / "train.parquet", *settings)
    assert ended == status and said in out + err


def test_a_function_that_fails_is_told_with_its_error(tmp_path, capsys):
    (tmp_path / "bad.py").write_text(
        "def reward(data_source, solution_str, ground_truth, extra_info):\n    return 1/0\n"
    )
    file = write_jsonl(tmp_path / "answers.jsonl", {"response": "a", "ground_truth": "7"})
    own = [f"reward.custom_reward_function.path={tmp_path}/bad.py", "reward.custom_reward_function.name=reward"]
    status, out, _ = grade(capsys, file, *own)
    assert status == 1 and "ZeroDivisionError: division by zero" in out
    assert out.splitlines()[-1] == "the function failed on 1 of 1 answers; correct it"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["reward.custom_reward_function.path=none.py"], "path=none.py: no such file"),
        (["reward.custom_reward_functoin.path=a.py"], "custom_reward_functoin"),
        (
            ["custom_reward_function.path=r.py", "custom_reward_function.name=f"],
            "custom_reward_function.path=r.py has no effect: verl 0.9.1 reads rewards from the group reward",
        ),
        (["relift.reward.correct_from=1"], "relift.reward.correct_from=1 has no effect"),
        (["+reward.custom_reward_function.reward_kwargs.thinkin=required"], "thinkin is not a setting"),
        (["+reward.custom_function.path=r.py"], "reward.custom_function.path=r.py: there is no such key"),
        (["data.reward_fn_key=kind"], "data.reward_fn_key=kind"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, capsys, arguments, problem):
    file = write_jsonl(tmp_path / "answers.jsonl", {"response": "a", "ground_truth": "7"})
    status, out, err = grade(capsys, file, *arguments)
    assert status == 2 and out == "" and problem in err and len(err.splitlines()) == 1


def test_a_file_without_the_columns_is_told_with_what_it_has(tmp_path):
    file = write_jsonl(tmp_path / "answers.jsonl", {"text": "a"})
    with pytest.raises(GradeError, match=r"answers.jsonl:1: no column response or output; there are text"):
        list(read_answers(file, "target"))
    (tmp_path / "torn.jsonl").write_text("{")
    for name in ("torn.jsonl", "none.jsonl", "none.parquet"):
        with pytest.raises(GradeError, match="give a parquet or jsonl file"):
            list(read_answers(tmp_path / name, "target"))


def own(tmp_path: Path, body: str) -> list[str]:
    """The arguments that name a function with this body."""
    body = "\n".join(f"    {line}" for line in body.splitlines())
    (tmp_path / "r.py").write_text(
        f"import sys\n\n\ndef f(data_source, solution_str, ground_truth, extra_info):\n{body}\n"
    )
    return [f"reward.custom_reward_function.path={tmp_path}/r.py", "reward.custom_reward_function.name=f"]


def write_parquet(path: Path, *rows: dict) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def demonstrations(*answers: object) -> list[dict]:
    return [
        {"data_source": "mine", "target": f"The answer is {answer}", "reward_model": {"ground_truth": str(answer)}}
        for answer in answers
    ]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("pass", "returned None (NoneType), which is no number"),
        ("return (1.0, 2.0)", "returned (1.0, 2.0) (tuple), which is no number"),
        ("return [1.0]", "returned [1.0] (list), which is no number"),
        ("return '1.0'", "returned '1.0' (str), which is no number"),
        ("return {'score': '1.0'}", "returned score='1.0' (str), which is no number"),
        ("return {'acc': 1.0}", "returned a dict without score: it has acc"),
        ("return {'score': 1.0, 'acc': 'yes'}", "returned acc='yes' (str), which must be 1 for a right answer"),
        ("return {'score': 1.0, 'acc': '1.0'}", "returned acc='1.0' (str), which must be 1 for a right answer"),
        ("sys.exit(3)", "raised SystemExit: 3"),
        ("next(iter([]))", "raised StopIteration"),
    ],
)
def test_what_is_no_reward_is_told_with_the_function_the_answer_and_the_first_reason(tmp_path, capsys, body, what):
    file = write_jsonl(tmp_path / "a.jsonl", *[{"response": "It is 7", "ground_truth": "7"}] * 3)
    status, out, err = grade(capsys, file, "--show", 0, *own(tmp_path, body))
    last = out.splitlines()[-1]
    assert status == 1 and err == "" and last.startswith("the function failed on 3 of 3 answers (the first: ")
    assert what in last and f"{tmp_path}/r.py" in last and "for the answer 'It is 7' to the ground truth '7'" in last
    status, out, _ = grade(capsys, file, "--show", 1, *own(tmp_path, body))
    assert status == 1 and out.count(what) == 1 and out.splitlines()[-1].endswith("3 of 3 answers; correct it")


def test_one_failure_does_not_print_the_answers_after_it(tmp_path, capsys):
    texts = ["1", "1", "x", "1", "1"]
    file = write_jsonl(tmp_path / "a.jsonl", *({"response": text, "ground_truth": "7"} for text in texts))
    status, out, _ = grade(capsys, file, "--show", 1, *own(tmp_path, "return float(int(solution_str))"))
    # which function, the header, the first answer, the failure in two lines, and two sums
    assert status == 1 and len(out.splitlines()) == 7


@pytest.mark.parametrize("answers", [(7, 8, 9), (7, 7, 7)])
def test_a_function_that_pays_for_everything_is_told(tmp_path, capsys, answers):
    file = write_parquet(tmp_path / "train.parquet", *demonstrations(*answers))
    status, out, _ = grade(capsys, file, *own(tmp_path, "return 1.0"))
    last = out.splitlines()[-1]
    assert status == 1 and last.startswith("answers that are wrong count as right, such as '' for the ground truth '7'")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("return float(bool(solution_str))", 1, "answers that are wrong count as right, such as 'The answer is "),
        # 107 ends with 7, and nothing else does
        (
            "return float(solution_str.endswith(ground_truth))",
            0,
            "1 of them count as right, such as 'The answer is 107'",
        ),
        ("return float(solution_str.split()[-1:] == [ground_truth])", 0, "4 wrong answers (an empty one"),
    ],
)
def test_some_wrong_answers_that_count_as_right_are_a_remark_and_all_a_failure(tmp_path, capsys, body, status, said):
    file = write_parquet(tmp_path / "train.parquet", *demonstrations(7, 107, 8))
    ended, out, _ = grade(capsys, file, *own(tmp_path, body))
    assert ended == status and out.splitlines()[-1].startswith(said)


@pytest.mark.parametrize("reward", ["1.0", "0.5"])
def test_demonstrations_of_which_none_is_right_are_told(tmp_path, capsys, reward):
    body = f"acc = {reward} * (int(solution_str.split()[-1] if solution_str else 0) == ground_truth)\n"
    file = write_parquet(tmp_path / "train.parquet", *demonstrations(108, 109))
    status, out, _ = grade(capsys, file, *own(tmp_path, f"{body}return {{'score': acc, 'acc': acc}}"))
    [line] = [line for line in out.splitlines() if line.startswith("no demonstration is right")]
    assert status == 1 and line.endswith("as ground_truth what the file has, such as '108' (str)")


def test_the_built_in_grader_says_why_no_demonstration_is_right(tmp_path, capsys):
    status, out, _ = grade(capsys, write_parquet(tmp_path / "train.parquet", *demonstrations(7, 8)))
    assert status == 1 and "The usual outcome is no_answer (2 of 2): The response has no final answer" in out


def test_answers_of_a_jsonl_file_may_all_be_wrong(tmp_path, capsys):
    file = write_jsonl(tmp_path / "a.jsonl", {"response": "8", "ground_truth": "7"})
    assert grade(capsys, file)[0] == 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"response": None, "ground_truth": "7"}, "row 2, column response: null, not text; drop"),
        ({"response": 7, "ground_truth": "7"}, "row 2, column response: a number, not text; drop"),
        ({"output": ["7"], "gts": "7"}, "row 2, column output: a list, not text; drop"),
        ({"response": "7", "ground_truth": None}, "row 2, column ground_truth: null; drop"),
        ({"response": "7", "ground_truth": "7", "source": 1}, "row 2, column source: a number, not text"),
        (
            {"response": "7", "ground_truth": "7", "extra_info": "x"},
            "row 2, column extra_info: 'x' (str), not an object",
        ),
        (["7", "7"], "row 2: ['7', '7'] (list), not an object"),
        (7, "row 2: 7 (int), not an object"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_its_place(tmp_path, capsys, row, said):
    file = write_jsonl(tmp_path / "a.jsonl", {"response": "7", "ground_truth": "7"}, row)
    status, out, err = grade(capsys, file)
    assert status == 2 and out == "" and err.startswith(f"grade: {file}, {said}") and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reward_model": None}, "row 1, column reward_model.ground_truth: null"),
        ({"data_source": None}, "row 1, column data_source: null, not text"),
    ],
)
def test_a_parquet_row_without_what_grading_needs_is_told_with_its_place(tmp_path, capsys, change, said):
    first, second = demonstrations(7, 8)
    file = write_parquet(tmp_path / "train.parquet", first, second | change)
    status, out, err = grade(capsys, file)
    assert status == 2 and out == "" and err.startswith(f"grade: {file}, {said}")


def test_a_demonstration_of_another_type_is_told_with_the_column_of_the_configuration(tmp_path, capsys):
    row = demonstrations(7)[0] | {"solution": 7}
    file = write_parquet(tmp_path / "train.parquet", row)
    status, _, err = grade(capsys, file, "method.demonstrations.column=solution")
    assert status == 2 and f"{file}, row 0, column solution: a number, not a chat list, text or null" in err


@pytest.mark.parametrize(
    "source", ["import sys\nsys.exit(3)\n", "class f:\n    def __init__(self):\n        raise SystemExit(3)\n"]
)
def test_a_file_that_ends_the_program_is_told(tmp_path, capsys, source):
    file = write_jsonl(tmp_path / "a.jsonl", {"response": "7", "ground_truth": "7"})
    arguments = own(tmp_path, "return 1.0")
    call = "\n    def __call__(self, data_source, solution_str, ground_truth, extra_info):\n        return 1.0\n"
    (tmp_path / "r.py").write_text(source + (call if source.startswith("class") else ""))
    status, out, err = grade(capsys, file, *arguments)
    assert status == 2 and out == "" and "SystemExit: 3" in err and f"{tmp_path}/r.py" in err


def test_a_limit_is_positive(tmp_path, capsys):
    file = write_jsonl(tmp_path / "a.jsonl", {"response": "7", "ground_truth": "7"})
    status, _, err = grade(capsys, file, "--limit", 0)
    assert status == 2 and "--limit 0 must be at least 1" in err
