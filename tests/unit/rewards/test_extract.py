"""Which part of a response is its final answer."""

import time

import pytest

from verl_relift.rewards.extract import extract_answer
from verl_relift.rewards.outcome import GradeOutcome
from verl_relift.rewards.settings import Convention, GradingRules, Thinking

RULES = GradingRules()
THINKING = GradingRules(thinking=Thinking.REQUIRED)
PHRASE = GradingRules(conventions=(Convention.BOXED, Convention.PHRASE))


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>7+7=14\n14+3=17\n17-4=13\n</think>\\boxed{13}", "13"),
        ("The answer is $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\fbox{13}", "13"),
        ("\\boxed {13}", "13"),
        ("\\\\boxed{13}", "13"),
        ("\\boxed{\\left\\{ 1, 2 \\right.}", "\\left\\{ 1, 2 \\right."),
        ("\\boxed{13} apples, which is \\textbf{13}.", "13"),
        ("\\boxed{x = \\boxed{13}}", "13"),
        ("\\boxed{\\boxed{13}}", "13"),
        ("#### 13", "13"),
        ("so 13\n#### 13\n", "13"),
        ("#### 12\n#### 13", "13"),
        ("\\boxed{13}\n#### 14", "13"),
    ],
)
def test_answer_is_read(response, answer):
    assert extract_answer(response, RULES).answer == answer


@pytest.mark.parametrize(
    "response",
    [
        "",
        "The answer is 13.",
        "\\boxed{}",
        "\\boxed{ }",
        "\\boxed 13",
        "\\boxed{13",
        "####",
        "#### \nthirteen",
        "\\boxed{13} is what I first thought. No: nothing works, so \\boxed{}",
    ],
)
def test_no_answer(response):
    assert extract_answer(response, RULES).failure is GradeOutcome.NO_ANSWER


def test_an_answer_only_inside_the_thought_is_none():
    assert extract_answer("<think>so \\boxed{13}</think>It is 13.", RULES).failure is GradeOutcome.NO_ANSWER
    assert extract_answer("<think>so \\boxed{13}", RULES).failure is GradeOutcome.NO_ANSWER
    assert extract_answer("</think><think>\\boxed{13}", RULES).failure is GradeOutcome.NO_ANSWER


def test_thought_opened_by_the_prompt():
    assert extract_answer("\\boxed{12}, no.</think>\\boxed{13}", RULES).answer == "13"


def test_last_of_distant_boxes_counts():
    response = "\\boxed{13} was the first idea, but on reflection the sum has another term.\n\nThus $\\boxed{14}$."
    assert extract_answer(response, RULES).answer == "14"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("$x=\\boxed{1}$ or $x=\\boxed{2}$", "1,2"),
        ("\\boxed{1}, \\boxed{2} and \\boxed{3}", "1,2,3"),
        ("\\boxed{1} \\boxed{1}", "1"),
        ("\\boxed{1}or\\boxed{2}", "1,2"),
        ("".join(f"\\boxed{{{n}}}" for n in range(5)), "0,1,2,3,4"),
    ],
)
def test_neighboring_boxes_are_one_list(response, answer):
    """Enumerating candidates gives one long, wrong list, not several chances."""
    assert extract_answer(response, RULES).answer == answer


@pytest.mark.parametrize(
    ("response", "failure"),
    [
        ("<think>a</think>\\boxed{13}", None),
        (" \n<think>a</think>\\boxed{13}", None),
        ("a</think>\\boxed{13}", None),
        ("\\boxed{13}", GradeOutcome.BAD_FORMAT),
        ("<think>a\\boxed{13}", GradeOutcome.BAD_FORMAT),
        ("<think>a</think>b</think>\\boxed{13}", GradeOutcome.BAD_FORMAT),
        ("<think>a<think>b</think>\\boxed{13}", GradeOutcome.BAD_FORMAT),
        ("b<think>a</think>\\boxed{13}", GradeOutcome.BAD_FORMAT),
        ("<think>a</think>13", GradeOutcome.NO_ANSWER),
    ],
)
def test_required_thought(response, failure):
    assert extract_answer(response, THINKING).failure is failure


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Answer: B", "B"),
        ("**Answer:** (B)", "(B)"),
        ("The answer is (B).", "(B)"),
        ("The answer is not A, the answer is B.", "B"),
        ("The answer is A.\nNo. Answer: \\text{B}", "\\text{B}"),
    ],
)
def test_phrase_convention(response, answer):
    assert extract_answer(response, PHRASE).answer == answer


def test_phrase_is_not_read_unless_asked_for():
    assert extract_answer("Answer: B", RULES).failure is GradeOutcome.NO_ANSWER


@pytest.mark.parametrize(
    "filler", ["\\boxed{", "\\", "{", "}", "####", "</think>", "<think>", "answer is ", "\\boxed", "\\boxed  "]
)
def test_a_megabyte_takes_linear_time(filler):
    rules = GradingRules(conventions=tuple(Convention))
    text = filler * (1_000_000 // len(filler))
    started = time.perf_counter()
    extract_answer(text + "\\boxed{13}", rules)
    extract_answer(text, rules)
    assert time.perf_counter() - started < 5
