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
    assert len(lines) == 6 and lines[1].split()[1:3] == ["1.00", "7"] and lines[2].split()[1:3] == ["0.00", "7"]
    assert lines[3].startswith("2 graded: mean reward ") and lines[3].endswith(", 1 right, 0 partial, 1 wrong")
    assert lines[4] == "1 rows of the file have no demonstration"
    assert lines[5].startswith("1 wrong answers (an empty one, ") and lines[5].endswith("0 right, 0 partial, 1 wrong")


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
    assert status == 0 and out.endswith("3 graded: mean reward 0.500, 1 right, 0 partial, 2 wrong\n")


PARTIAL = """
def reward(data_source, solution_str, ground_truth, extra_info):
    score = 1.0 if solution_str.endswith(ground_truth) else 0.5 if "answer" in solution_str else 0.0
    return {"score": score, "acc": ACC} if ACC is not None else score
"""


@pytest.mark.parametrize(
    ("acc", "correct_from", "status", "said"),
    [
        ("None", None, 1, "the reward function returned 0.5, which is neither 0 nor 1, and no acc: set relift.reward."),
        ("None", 1, 0, "mean reward 0.333, 0 right, 0 partial, 3 wrong"),
        ("score >= 1", None, 0, "mean reward 0.333, 0 right, 0 partial, 3 wrong"),
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
