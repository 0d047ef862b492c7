"""SVAMP: word problems whose equations become demonstrations."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_preprocess.cli import main
from data_preprocess.svamp import SVAMP, join, steps
from verl_relift.data.errors import DataError

FOLDER = Path(__file__).parents[3] / "examples" / "data" / "svamp"


@pytest.mark.parametrize(
    ("equation", "lines"),
    [
        ("( 76.0 - 25.0 )", ["76 - 25 = 51"]),
        ("( ( 13.0 * 17.0 ) + 8.0 )", ["13 * 17 = 221", "221 + 8 = 229"]),
        ("( 84.0 / ( 4.0 + 8.0 ) )", ["4 + 8 = 12", "84 / 12 = 7"]),
        ("( 12.0 - 15.0 )", ["12 - 15 = -3"]),
        ("( 7.0 / 2.0 )", ["7 / 2 = 3.5"]),
        ("( 0.1 + 0.2 )", ["0.1 + 0.2 = 0.3"]),
        ("8.0", ["8"]),
    ],
)
def test_an_equation_becomes_its_steps(equation, lines):
    assert steps(equation) == lines


@pytest.mark.parametrize("equation", ["( 1.0 / 0.0 )", "( 2.0 ** 9.0 )", "f(1)", "( 1.0 +", "'a'", "(" * 5000])
def test_anything_else_is_a_fault_of_the_row(equation):
    with pytest.raises(DataError, match="not an equation"):
        steps(equation)


def test_a_question_ends_the_sentence_of_its_body():
    assert join("Dan has $ 3. ", "How much?") == "Dan has $ 3. How much?"
    assert join("If he had $ 4", "How much did it cost?") == "If he had $ 4, how much did it cost?"


def test_every_demonstration_of_the_repository_is_right(tmp_path):
    arguments = ["--input", str(FOLDER), "--output", str(tmp_path), "--template", "boxed", "--verify", "--quiet"]
    assert main(SVAMP, arguments) == 0
    counts = {name: pq.read_metadata(tmp_path / f"{name}.parquet").num_rows for name in ("train", "test")}
    assert counts == {"train": 689, "test": 311}


def test_no_story_is_in_both_files():
    """Neither with the same numbers nor with others."""
    stories = {}
    for name in ("train", "test"):
        records = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]
        stories[name] = {re.sub(r"[\d.,]+", "#", record["Body"]) for record in records}
    assert stories["train"].isdisjoint(stories["test"])
