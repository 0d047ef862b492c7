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
    assert len(lines) == 4 and lines[1].split()[1:3] == ["1.00", "7"] and lines[2].split()[1:3] == ["0.00", "7"]
    assert lines[3].startswith("2 graded: mean reward ") and lines[3].endswith(", 1 right")


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
    assert status == 0 and out.splitlines()[-1] == "1 graded: mean reward 1.000, 1 right"


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
        (["reward.custom_reward_function.path=none.py"], "cannot be loaded from none.py"),
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
        list(read_answers(file))
    (tmp_path / "torn.jsonl").write_text("{")
    for name in ("torn.jsonl", "none.jsonl", "none.parquet"):
        with pytest.raises(GradeError, match="give a parquet or jsonl file"):
            list(read_answers(tmp_path / name))
