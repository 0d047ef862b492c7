"""Expressions told apart at a point."""

import pytest
from math_verify import parse, verify

from verl_relift.rewards.judge.separate import surely_unequal
from verl_relift.rewards.judge.verdict import parse as parse_whole

FORMS = (
    *(
        "x",
        "2x",
        "x+y",
        "xy",
        "abc",
        "x^2+2x+1",
        "(x+1)^2",
        "\\frac{1-p^{2}}{3}",
        "\\frac{1-p^{2}}{4}",
        "e",
        "e^x",
        "\\pi",
    ),
    *(
        "n!",
        "n(n+1)",
        "\\lfloor n/2\\rfloor",
        "\\sqrt{x^2}",
        "|x|",
        "\\log_{10}2",
        "\\log_{10}3",
        "2^{k-n}",
        "3^{k-n}",
        "i",
    ),
    *(
        "(4,\\log_{10}2)",
        "(4,\\log_{10}3)",
        "[0,x]",
        "(x,y,z)",
        "(x,y,w)",
        "\\{x,y\\}",
        "y=x",
        "\\sin x",
        "\\frac{1}{x}",
    ),
)

EQUATIONS = (
    "y=x",
    "y=x^2",
    "y=-\\sqrt{x}",
    "x=y^2",
    "y=|x|",
    "y=2x",
    "2x-y=0",
    "y=e^x",
    "x=\\ln y",
    "y=4",
    "y=4+z-z",
    "z=4+x",
    "f(x)=x",
    "f(x)=2x",
    "x=4",
    "4",
    "x=4,y=x",
    "y=x,x=4",
    "\\{4,x\\}",
    "\\{4,y^2\\}",
    "y=z=x",
)


def _check(truth, answers):
    gold = parse(f"\\boxed{{{truth}}}")
    for answer in answers:
        if surely_unequal(parse_whole(truth), parse_whole(answer)):
            assert not verify(gold, parse(f"\\boxed{{{answer}}}")), answer


@pytest.mark.parametrize("truth", FORMS)
def test_never_contradicts_math_verify(truth):
    _check(truth, FORMS)


@pytest.mark.parametrize("truth", EQUATIONS)
def test_equations_and_lists_never_contradict_math_verify(truth):
    _check(truth, EQUATIONS)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("2^{k-n}", "3^{k-n}"),
        ("\\frac{1-p^{2}}{4}", "\\frac{1-p^{2}}{3}"),
        ("(4,\\log_{10}3)", "(4,\\log_{10}2)"),
        ("36", "2^{k-n}"),
        ("f(x)=3-x", "f(x)=2-x"),
        ("f(x)=x+1", "f(n)=n+1"),
        ("M=2^{N-2}+2", "M=2^{N-2}+1"),
        ("k=1", "n=k+4"),
        ("f(x)=x,f(x)=3-x", "f(x)=x,f(x)=2-x"),
        ("(1,2),(3,4)", "(1,2),(3,5)"),
        ("5,-7", "2,-\\log_{10}250"),
    ],
)
def test_slow_comparisons_are_avoided(answer, truth):
    assert surely_unequal(parse_whole(truth), parse_whole(answer))
