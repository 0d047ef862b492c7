"""Closed forms: told apart by their values, and left to the judge where they have two readings."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_verify import parse, verify

from verl_relift.rewards.compare import bare
from verl_relift.rewards.numeric import surely_different, value
from verl_relift.rewards.text import tidy


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("13", 13),
        ("-\\frac{3}{2}", -1.5),
        ("\\frac{67\\pi}{3}", 67 * math.pi / 3),
        ("2\\sqrt{2}", 2 * math.sqrt(2)),
        ("\\sqrt[3]{8}", 2),
        ("\\frac{2016}{2017^{2}}", 2016 / 2017**2),
        ("1024-256\\pi", 1024 - 256 * math.pi),
        ("2^{10}-1", 1023),
        ("-2^2", -4),
        ("3\\cdot 2^{-1}", 1.5),
        ("(1+\\sqrt{5})\\cdot(2)", 2 + 2 * math.sqrt(5)),
        ("\\frac{1}{2}\\sqrt{3}", math.sqrt(3) / 2),
        ("8/4/2", 1),
    ],
)
def test_values(latex, expected):
    assert value(latex) == pytest.approx(expected)


@pytest.mark.parametrize(
    "latex",
    [
        "",
        "x",
        "1,2",
        "3\\frac{1}{2}",
        "3 1",
        "1/2\\pi",
        "2^10",
        "2^3^4",
        "\\frac12",
        "\\sqrt{-1}",
        "\\frac{1}{0}",
        "5!",
        "0^0",
        "2(3)",
        "(2)(3)",
        "10^{400}",
        "10^{13}",
        "5\\%",
        "--5",
        "5-",
        "()",
        "\\pi 2",
        "(" * 200 + "1" + ")" * 200,
        "e",
        "1.2.3",
        "\\log 2",
        "[1]",
    ],
)
def test_forms_without_one_reading(latex):
    assert value(latex) is None


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("2\\sqrt{3}", "2\\sqrt{2}"),
        ("3,5", "3,4"),
        ("3,4", "3"),
        ("1,2", "(1,3)"),
        ("7", "(0,7)"),
        ("1,2,3", "[1,2]"),
        ("(3,3)", "(3,2)"),
        ("[0,1]", "[0,2]"),
        ("\\{1,2\\}", "\\{1,3\\}"),
        ("0.33", "\\frac{1}{3}"),
    ],
)
def test_different(answer, truth):
    assert surely_different(answer, truth)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("1,2", "2,1"),
        ("(1,2)", "(2,1)"),
        ("[0,1]", "[0,1)"),
        ("1,1", "1"),
        ("1,2", "(1,2)"),
        ("0.33333,\\frac{1}{3}", "\\frac{1}{3}"),
        ("\\sqrt{8}", "2\\sqrt{2}"),
        ("0.33333", "\\frac{1}{3}"),
        ("1,000", "2"),
        ("x", "2"),
    ],
)
def test_not_surely_different(answer, truth):
    assert not surely_different(answer, truth)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("x=13", "13"),
        ("x_{1}=13", "13"),
        ("(13)", "13"),
        ("13\\text{ cm}^2", "13"),
        ("90^{\\circ}", "90"),
        ("x=2\\pi", "2\\pi"),
    ],
)
def test_bare_numbers(answer, number):
    assert bare(tidy(answer), "1") == number


@pytest.mark.parametrize("answer", ["x=1,2", "x=y", "1=x=2", "(1,2)", "(1)(2)x", "\\text{cm}", "2x=4"])
def test_not_bare_numbers(answer):
    assert bare(tidy(answer), "1") == tidy(answer)


INTEGERS = st.integers(1, 12).map(str)
FORMS = st.recursive(
    st.one_of(INTEGERS, st.just("\\pi"), st.just("0.5")),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"\\frac{{{p[0]}}}{{{p[1]}}}"),
        inner.map(lambda x: f"\\sqrt{{{x}}}"),
        inner.map(lambda x: f"-{x}"),
        st.tuples(INTEGERS, inner).map(lambda p: f"{p[0]}\\cdot({p[1]})"),
        st.tuples(inner, st.sampled_from(["+", "-", "\\cdot ", "\\times "]), inner).map("".join),
        st.tuples(inner, st.integers(2, 3)).map(lambda p: f"({p[0]})^{{{p[1]}}}"),
    ),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=1_500, deadline=None)
@given(FORMS, FORMS)
def test_surely_different_forms_differ_to_math_verify(answer, truth):
    if surely_different(answer, truth):
        assert not verify(parse(f"\\boxed{{{truth}}}"), parse(f"\\boxed{{{answer}}}")), (answer, truth)


@pytest.mark.slow
@settings(max_examples=1_000, deadline=None)
@given(FORMS)
def test_values_are_math_verifys(form):
    number = value(form)
    if number is not None:
        (parsed, *_) = parse(f"\\boxed{{{form}}}")
        assert complex(parsed.evalf()) == pytest.approx(number, rel=1e-6, abs=1e-6)
