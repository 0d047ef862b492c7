"""Boxed answers: found in solutions and written into demonstrations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_preprocess.answers import demonstration, last_boxed

text = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("so \\boxed{7}", "7"),
        ("\\boxed{1} and \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\fbox{3}", "3"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{4} then \\boxed{5", "4"),
        ("none", None),
    ],
)
def test_last_boxed(solution, answer):
    assert last_boxed(solution) == answer


@given(text, st.text("0123456789abc+-^ ", min_size=1))
def test_a_demonstration_boxes_its_answer(solution, answer):
    assert last_boxed(demonstration(solution, answer, think=True)) == answer.strip()
