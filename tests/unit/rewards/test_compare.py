"""Verdicts of the exact path: numbers, words, options, percentages, and what is left to the judge."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from verl_relift.rewards.compare import compare, percent_readings
from verl_relift.rewards.exact import plain_number
from verl_relift.rewards.ground_truth import alternatives
from verl_relift.rewards.text import tidy
from verl_relift.rewards.unevaluated import is_unevaluated


def verdict(answer, truth, allow_unevaluated=False):
    return compare(answer, tidy(truth), allow_unevaluated=allow_unevaluated, max_answer_chars=2_000)


@pytest.mark.parametrize(
    ("latex", "value"),
    [
        ("13", 13),
        ("-13", -13),
        ("+13", 13),
        ("007", 7),
        ("1,234,567", 1234567),
        ("1.50", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("-0.25", Fraction(-1, 4)),
        ("1,000.5", Fraction(2001, 2)),
        ("1/2", Fraction(1, 2)),
        ("-\\frac{2}{4}", Fraction(-1, 2)),
        ("\\frac{-1}{2}", Fraction(-1, 2)),
    ],
)
def test_plain_numbers(latex, value):
    assert plain_number(latex) == value


@pytest.mark.parametrize(
    "latex", ["", "x", "1,2", "12,34", "1e5", "1/0", "\\frac{1}{0}", "1 2", "--1", "1.", "½", "１", "9" * 401]
)
def test_not_plain_numbers(latex):
    assert plain_number(latex) is None


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("13", "13"),
        ("13.0", "13"),
        ("$13$", "13"),
        ("\\$13", "13"),
        ("13.", "13"),
        ("1{,}000", "1000"),
        ("1\\,000", "1000"),
        ("1\\!000", "1000"),
        ("1 000", "1000"),
        ("−5", "-5"),
        ("\\dfrac{1}{2}", "\\frac{1}{2}"),
        ("0.5", "\\frac{1}{2}"),
        ("\\frac{2}{4}", "1/2"),
        ("\\left(1, 2\\right)", "(1, 2)"),
        ("t(0,4]", "$t(0,4]$"),
        ("\\text{No solution}", "no solution"),
        ("Sunday.", "\\text{Sunday}"),
    ],
)
def test_equal(answer, truth):
    assert verdict(answer, truth) is True


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("12", "13"),
        ("1,000", "1"),
        ("13.1", "13"),
        ("0.4", "\\frac{1}{2}"),
        ("1/3", "1/2"),
        ("13-", "13"),
        ("7*2+3-4=?", "13"),
        ("12=13", "13"),
        ("1=2=13", "13"),
        ("1, 000", "1000"),
        ("0", "0.0000004"),
        ("0.0000006", "0.0000004"),
        ("9" * 2_001, "x"),
    ],
)
def test_different(answer, truth):
    assert verdict(answer, truth) is False


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("13, 13", "13"),
        ("\\sqrt{4}", "2"),
        ("0.333333", "1/3"),
        ("x+1", "1+x"),
        ("7+6=13", "13"),
    ],
)
def test_left_to_the_judge(answer, truth):
    assert isinstance(verdict(answer, truth), tuple)


def test_small_decimals_are_compared_by_their_digits():
    """Rounded to six places, 0.0000004 is 0, so a comparison of rounded values would accept any tiny number."""
    assert verdict("0.00000040", "0.0000004") is True
    assert verdict("0.00000041", "0.0000004") is False


@pytest.mark.parametrize(
    "answer",
    [
        "7*2+3-4",
        "7\\cdot 2+3-4",
        "7\\times2+3-4",
        "(7)(2)-1",
        "7(2)-1",
        "17--4",
        "10+3",
        "10 + 3",
        "26/2",
        "\\frac{26}{2}",
        "\\frac{7*2+3-4}{1}",
        "\\sqrt{9}+10",
        "x=7*2+3-4",
        "13=7*2+3-4",
        "7*2+3-4\\text{ apples}",
        "1 12",
        "\\gcd(26,39)",
        "\\operatorname{lcm}(13,1)",
        "\\max(12,13)",
        "\\sum_{k=1}^{13}1",
        "\\int_0^{13}dx",
        "\\lim_{x\\to13}x",
        "40\\bmod 27",
        "\\lfloor 13.5\\rfloor",
    ],
)
def test_repeating_the_question_is_no_answer(answer):
    """math-verify would compute the sum and accept it."""
    assert verdict(answer, "13") is False


@pytest.mark.parametrize(
    "answer",
    ["2^{10}", "2^{10}-1", "1.5\\cdot10^6", "-3\\times 10^{-2}", "10^6+1", "x=5", "5!", "\\binom{5}{2}", "\\sqrt{16}"],
)
def test_common_ways_to_write_a_number_are_evaluated(answer):
    assert not is_unevaluated(tidy(answer), "13")


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("\\lfloor n/2\\rfloor+1", "\\lfloor \\frac{n}{2}\\rfloor+1"),
        ("1+\\sqrt{2}", "\\sqrt{2}+1"),
        ("2\\cdot3^{n}", "3^n\\cdot2"),
        ("-\\frac{1}{2}", "-0.5"),
        ("\\max(a,b)", "\\max(b,a)"),
    ],
)
def test_a_calculation_may_be_the_answer(answer, truth):
    assert not is_unevaluated(tidy(answer), tidy(truth))


@pytest.mark.parametrize(
    "answer",
    [
        "13\\text{ or 14}",
        "13\\textbf{ or 14}",
        "13\\mathrm{or14}",
        "13 \\text{(or 14)}",
        "13\\text{, 14}",
        "13\\text{ to 14}",
        "13\\text{ cm or 14 cm}",
        "13\\text{ cm}\\text{ or 14}",
        "13\\text{ but perhaps fourteen}",
        "13\\text{ or other}",
        "13\\text{ if }n=2, 14\\text{ otherwise}",
        "13\\%\\%",
        "130000\\%\\%",
        "13 % \\%",
        "x=12=13",
        "12\\equiv 13",
        "26:2",
    ],
)
def test_a_number_followed_by_a_second_one_is_wrong(answer):
    """math-verify drops words after a number as a unit, and reads the last side of a chain."""
    assert verdict(answer, "13") is False


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("13\\text{ cm}^2", "13"),
        ("13\\text{ cm2}", "13"),
        ("13\\text{ men and women}", "13"),
        ("\\sqrt{2}\\text{ m}", "\\sqrt{2}"),
        ("1\\text{ or }2", "1,2"),
        ("x=\\frac{1}{3}=0.333333", "\\frac{1}{3}"),
        ("1/3=0.333", "0.333"),
        ("n\\text{ for n not 2}", "n\\text{ if n is not }2"),
    ],
)
def test_a_unit_or_a_rounded_chain_is_not_a_second_answer(answer, truth):
    assert verdict(answer, truth) is not False


def test_arithmetic_is_allowed_on_request():
    assert isinstance(verdict("7*2+3-4", "13", allow_unevaluated=True), tuple)


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "b",
        "(B)",
        "B.",
        "B)",
        "\\text{B}",
        "\\textbf{(B)}",
        "\\mathrm{B}",
        "(B) 12 cm",
        "B: I and II only",
        "(B) P(A)=0.5",
        "B. f(a)",
        "(B) a cat or a dog",
        "B. vitamin C",
        "(B) 1.5 m",
        "B: (1,2)",
        "**B**",
    ],
)
def test_option_letters(answer):
    assert verdict(answer, "B") is True


@pytest.mark.parametrize(
    "answer",
    [
        "A",
        "(A)",
        "A) B",
        "(B) or (C)",
        "(B), (C)",
        "B. C",
        "(A)(B)",
        "\\text{(A) or (B)}",
        "(B) and C",
        "(C) 12",
        "(b) or (c)",
        "B) c d",
        "B)c)d)",
        "B: c or d",
        "B. 5 \\quad C. 6",
        "B. 5\nC. 6",
        "B. 5 C",
        "B) option C",
        "A=B",
        "\\{A,B\\}",
        "A\\lor B",
    ],
)
def test_wrong_or_hedged_options(answer):
    assert verdict(answer, "B") is False


@pytest.mark.parametrize(
    ("answer", "truth", "equal"),
    [
        ("5\\%", "5", True),
        ("5%", "0.05", True),
        ("5 percent", "5", True),
        ("5\\text{percent}", "5", True),
        ("5", "5\\%", True),
        ("0.05", "5\\%", True),
        ("100\\%", "1", True),
        ("5.5\\%", "5.5", True),
        ("5\\%", "5\\%", True),
        ("5\\%", "6", False),
        ("5\\%", "0.5", False),
        ("5\\%", "500\\%", False),
        ("0.05\\%", "5\\%", False),
    ],
)
def test_percentages(answer, truth, equal):
    assert verdict(answer, truth) is equal


def test_percent_sign_before_the_judge():
    assert percent_readings("x\\%", "y") == (("x", "y"), ("\\frac{x}{100}", "y"))
    assert percent_readings("20\\%,50\\%", "50\\%,20\\%") == (("20,50", "50,20"),)


@pytest.mark.parametrize(
    ("ground_truth", "expected"),
    [
        (13, ("13",)),
        (13.5, ("13.5",)),
        (1e-7, ("0.0000001",)),
        (Decimal("13.50"), ("13.50",)),
        (Fraction(1, 2), ("1/2",)),
        (np.int64(13), ("13",)),
        (np.array(["1", "2"]), ("1", "2")),
        (["a", ["b", 3]], ("a", "b", "3")),
        ("\\boxed{13}", ("13",)),
        ("so\n#### 1,080", ("1,080",)),
        ("$\\frac{1}{2}$", ("\\frac{1}{2}",)),
        (["5", "$5$"], ("5",)),
        ("", ()),
        (" $ ", ()),
        (None, ()),
        ([], ()),
        (float("nan"), ()),
        (float("inf"), ()),
    ],
)
def test_ground_truths(ground_truth, expected):
    assert alternatives(ground_truth) == expected


@pytest.mark.parametrize("ground_truth", [{"answer": 1}, b"13", True, object()])
def test_values_that_are_not_ground_truths(ground_truth):
    with pytest.raises(TypeError, match="ground truth is a"):
        alternatives(ground_truth)


def test_tidying_keeps_what_matters():
    assert tidy("\\begin{pmatrix}1\\\\ 2\\end{pmatrix}") == "\\begin{pmatrix}1\\\\ 2\\end{pmatrix}"
    assert tidy("1, 200") == "1, 200"
    assert tidy("3\\,4") == "3 4"
    assert tidy("x y") == "x y"
    assert tidy("\\leftarrow") == "\\leftarrow"
