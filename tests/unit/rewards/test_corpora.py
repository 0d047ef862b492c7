"""Grading against math-verify on real answers: slices in tests/data/grading. `benchmarks.grading` uses all the data."""

import re
from pathlib import Path

import pytest
from math_verify import parse, verify

from verl_relift.rewards import GradeOutcome, Grader, GradingRules, PoolSettings
from verl_relift.rewards.exact import equal_numbers, plain_number
from verl_relift.rewards.text import tidy
from verl_relift.testing.corpora import (
    boxed,
    equivalent_forms,
    last_digit_changed,
    long_responses,
    read_gsm8k,
    read_olympiadbench,
)

DATA = Path(__file__).parents[2] / "data" / "grading"
GSM8K = read_gsm8k(DATA / "gsm8k.jsonl")
OLYMPIAD = read_olympiadbench(DATA / "olympiadbench.jsonl")


@pytest.fixture(scope="module")
def grader():
    with Grader(pool=PoolSettings(workers=1, time_limit_s=20)) as grader:
        yield grader


@pytest.fixture(scope="module")
def lenient():
    """math-verify evaluates sums, so this grader allows them too."""
    with Grader(GradingRules(allow_unevaluated=True), PoolSettings(workers=1, time_limit_s=20)) as grader:
        yield grader


def math_verify(response, truth):
    """The serial baseline, which parses both sides for every response."""
    return verify(parse(f"\\boxed{{{truth}}}"), parse(response))


@pytest.mark.parametrize("ending", ["\n#### {}", "\nThe answer is \\boxed{{{}}}."])
def test_gsm8k_solutions_are_right_and_a_changed_digit_is_wrong(grader, ending):
    for question in GSM8K:
        assert grader.grade(question.solution + ending.format(question.truth), question.truth).correct
        wrong = last_digit_changed(question.truth)
        assert grader.grade(question.solution + ending.format(wrong), question.truth).outcome is GradeOutcome.WRONG
    assert grader.pool._fork_server is None, "GSM8K must not need the judge"


def test_no_olympiad_answer_is_rejected_against_itself(grader):
    for question in OLYMPIAD:
        assert grader.grade(boxed(question.truth), question.truth).correct, question.truth


def test_no_answer_with_a_changed_digit_is_paid(grader):
    """Every digit of every ground truth, raised by one: exponents, indices and members of lists too."""
    pairs = [
        (boxed(truth[:i] + str((int(truth[i]) + 1) % 10) + truth[i + 1 :]), truth)
        for truth in {question.truth for question in OLYMPIAD}
        for i, character in enumerate(truth)
        if character in "0123456789"
    ]
    assert len(pairs) > 200
    paid = [
        (grade.extracted, truth)
        for (_, truth), grade in zip(pairs, grader.grade_many(pairs), strict=True)
        if grade.correct
    ]
    assert not paid


def is_easier_here(answer, truth):
    """Return whether only this project accepts the answer: percentages, a closing period, or the truth's own text.

    Nor does math-verify read a closing m, t or the like of a ground truth, which it takes for a unit.
    """
    plain = tidy(answer)
    return (
        re.search(r"[0-9}] ?[a-z]\$?$", truth)
        or "%" in answer
        or answer.rstrip().endswith(".")
        or tidy(truth) in (plain, plain[1:-1])
    )


def test_rewritten_olympiad_answers_get_math_verifys_verdict(lenient):
    compared = 0
    for question in OLYMPIAD[::3]:
        for form in equivalent_forms(question.truth):
            response = boxed(form)
            mine, theirs = lenient.grade(response, question.truth).correct, math_verify(response, question.truth)
            compared += 1
            assert mine == theirs or (mine and is_easier_here(form, question.truth)), (form, question.truth)
    assert compared > 200


def test_exact_path_never_disagrees_with_math_verify():
    """Compare every pair of the corpora's numbers, and of other spellings, that the exact path decides."""
    spellings = [
        "0",
        "-1",
        "0.5",
        "1/2",
        "\\frac{1}{2}",
        "2",
        "2.0",
        "1,000",
        "1000",
        "0.333333",
        "\\frac{2}{6}",
        "100",
    ]
    numbers = [tidy(q.truth) for q in GSM8K[:8] + OLYMPIAD if plain_number(tidy(q.truth)) is not None][:24] + spellings
    parsed = {number: parse(f"\\boxed{{{number}}}") for number in numbers}
    for truth in numbers:
        for answer in numbers:
            mine = equal_numbers(answer, truth)
            if mine is not None:
                assert mine == verify(parsed[truth], parsed[answer]), (answer, truth)


def test_long_responses_get_math_verifys_verdict(lenient):
    """Only responses with a boxed answer count; without a box, math-verify takes the last number of the text."""
    questions = [question for question in OLYMPIAD if question.solution][:6] + GSM8K[:6]
    for kind, response, truth in long_responses(questions, seed=1):
        result = lenient.grade(response, truth)
        if kind == "cut":
            assert result.outcome is GradeOutcome.NO_ANSWER
        else:
            agrees = result.correct == math_verify(response, truth)
            assert agrees or (result.correct and is_easier_here(result.extracted, truth)), (result, truth)
