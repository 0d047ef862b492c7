"""The arithmetic task: levels, answers, and evaluation problems that training never sees."""

import re
from collections import Counter

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_preprocess import arithmetic
from data_preprocess.arithmetic import SHAPES, enumerate_shape, make_split, pretraining_questions
from verl_relift.rewards import grade


@pytest.fixture(scope="module")
def split():
    return make_split()


def test_evaluation_and_training_share_no_question(split):
    held_out = {question.expression for question in split.test}
    assert held_out.isdisjoint(question.expression for question in split.train)
    assert held_out.isdisjoint(question.expression for question in split.pretrain)
    assert len(held_out) == len(split.test)


def test_sizes_and_shares(split):
    levels = Counter(question.level for question in split.train)
    assert levels == {"easy": 256, "medium": 384, "hard": 256, "hardest": 384}
    assert len({question.expression for question in split.train}) == 1280
    evaluation = Counter(question.level for question in split.test)
    assert evaluation == dict.fromkeys(SHAPES, 200) | {"ood_two": 77}


def test_pretraining_never_sees_a_product(split):
    assert not any("*" in question.expression for question in split.pretrain)
    assert {question.level for question in split.pretrain} == {"easy", "medium", "hard"}


def test_short_questions_are_left_for_training(split):
    two_terms = {q.expression for q in split.pretrain if len(re.findall(r"\d", q.expression)) == 2}
    assert len(two_terms) >= 80


@pytest.mark.parametrize(("level", "count"), [("hardest", [2040]), ("ood_two", [77]), ("easy", [126, 1899])])
def test_distinct_questions(level, count):
    assert [len(enumerate_shape(level, shape)) for shape in SHAPES[level]] == count


def test_demonstration_of_the_specification():
    question = next(q for q in enumerate_shape("hardest", SHAPES["hardest"][0]) if q.expression == "7*2+3-4")
    assert question.text == "7*2+3-4=?"
    assert question.solution == "<think>7+7=14\n14+3=17\n17-4=13\n</think>\\boxed{13}"


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_answers_are_right_and_graded_so(seed):
    split = make_split(seed, train_size=40, eval_size=10, pretrain_size=40)
    for question in [*split.train, *split.test, *split.pretrain]:
        # In Python's arithmetic, too, products bind first and the rest is evaluated from left to right.
        assert int(question.answer) == eval(question.expression)
        assert 0 <= int(question.answer) <= 99
        assert grade(question.solution, question.answer).correct
        for step in question.steps:
            left, right = step.split("=")
            assert eval(left) == int(right)


def test_same_seed_same_questions_other_seed_others():
    assert make_split(3, 100, 20, 50) == make_split(3, 100, 20, 50)
    assert make_split(3, 100, 20, 50).train != make_split(4, 100, 20, 50).train
    assert pretraining_questions(1, 50, ()) == pretraining_questions(1, 50, set())


def test_more_questions_than_exist_raise():
    with pytest.raises(ValueError, match="level easy has only 1825 questions"):
        make_split(0, train_size=10_000)


def test_files(tmp_path):
    arguments = ["--train-size", "40", "--eval-size", "10", "--pretrain-size", "30"]
    for name in ("a", "b"):
        arithmetic.main(["--output", str(tmp_path / name), *arguments])
    for file in ("train.parquet", "test.parquet", "pretrain.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    row = pq.read_table(tmp_path / "a" / "train.parquet").to_pylist()[3]
    assert row["data_source"] == f"arithmetic/{row['extra_info']['level']}"
    assert row["extra_info"] | {"level": None} == {"index": 3, "split": "train", "level": None, "id": None}
    assert row["prompt"][0]["role"] == "user" and row["target"][0]["role"] == "assistant"
