"""Random text, and text grown from LaTeX, for a bounded time: no exception, no hang, no undeserved reward."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from verl_relift.rewards import Convention, GradeOutcome, Grader, GradingRules, PoolSettings
from verl_relift.rewards.exact import equal_numbers, plain_number
from verl_relift.rewards.extract import extract_answer
from verl_relift.rewards.text import tidy

RULES = GradingRules(conventions=tuple(Convention))
PIECES = (
    *(
        "\\boxed{",
        "}",
        "{",
        "\\frac{1}{2}",
        "\\sqrt{2}",
        "x",
        "13",
        "1,000",
        "0.5",
        "%",
        "\\%",
        "$",
        " ",
        ",",
        "=",
        "+",
        "-",
    ),
    *(
        "^",
        "_",
        "(",
        ")",
        "[",
        "]",
        "\\{",
        "\\}",
        "\\left(",
        "\\right)",
        "\\text{ or }",
        "\\cup",
        "\\infty",
        "\\pi",
        "!",
        "|",
    ),
    *(
        "####",
        "<think>",
        "</think>",
        "answer is",
        "\n",
        "\\\\",
        "&",
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "\\gcd",
        "\\sum_{k=1}",
    ),
)
LATEX = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
TERMS = st.recursive(
    st.sampled_from(["x", "y", "n", "2", "3", "f(x)", "\\pi", "\\sqrt{2}"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "\\cdot "]), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"\\frac{{{t[0]}}}{{{t[1]}}}"),
        st.tuples(inner, st.sampled_from(["2", "-1", "x"])).map(lambda t: f"({t[0]})^{{{t[1]}}}"),
        inner.map(lambda t: f"\\sqrt{{{t}}}"),
    ),
    max_leaves=4,
)
EQUATIONS = st.tuples(st.sampled_from(["x", "y", "n", "f(x)", "x^2", "2y"]), TERMS).map("=".join)
ANSWERS = st.one_of(TERMS, EQUATIONS, st.lists(st.one_of(TERMS, EQUATIONS), min_size=2, max_size=3).map(",".join))
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.decimals(-1000, 1000, places=3).map(str),
    st.fractions(-100, 100, max_denominator=50).map(lambda f: f"\\frac{{{f.numerator}}}{{{f.denominator}}}"),
)
FAST = settings(max_examples=300, deadline=None)
SLOW = settings(max_examples=2_500, deadline=None, suppress_health_check=list(HealthCheck))


@FAST
@given(st.one_of(st.text(max_size=200), LATEX))
@example("answer isanswer isanswer is")
def test_extraction_takes_any_text(text):
    found = extract_answer(text, RULES)
    assert (found.answer is None) != (found.failure is None)
    assert tidy(tidy(text)) == tidy(tidy(tidy(text)))


@FAST
@given(NUMBERS, NUMBERS)
def test_exact_verdicts_agree_with_arithmetic(answer, truth):
    verdict = equal_numbers(answer, truth)
    if verdict is not None:
        assert verdict == (plain_number(answer) == plain_number(truth))


@pytest.fixture(scope="module")
def grader():
    with Grader(RULES, PoolSettings(workers=2, time_limit_s=3)) as grader:
        yield grader


@pytest.mark.slow
@SLOW
@given(LATEX, st.sampled_from(["13", "\\frac{1}{2}", "x+1", "(1,2]", "\\{1,2\\}", "B", "50\\%"]))
def test_grading_takes_any_latex(grader, answer, truth):
    assert grader.grade(f"\\boxed{{{answer}}}", truth).outcome in GradeOutcome


@pytest.mark.slow
@SLOW
@given(st.text(max_size=60), st.text(min_size=1, max_size=20))
def test_grading_takes_any_text(grader, answer, truth):
    assert grader.grade(answer, truth).outcome in GradeOutcome


@pytest.mark.slow
@SLOW
@given(NUMBERS, NUMBERS)
def test_exact_verdicts_agree_with_math_verify(answer, truth):
    from math_verify import parse, verify

    verdict = equal_numbers(answer, truth)
    if verdict is not None:
        assert verdict == verify(parse(f"\\boxed{{{truth}}}"), parse(f"\\boxed{{{answer}}}"))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANSWERS, ANSWERS)
def test_math_verify_rejects_what_differs_at_a_point(answer, truth):
    from math_verify import verify

    from verl_relift.rewards.judge.separate import surely_unequal
    from verl_relift.rewards.judge.verdict import parse

    gold, target = parse(truth), parse(answer)
    if gold is not None and target is not None and surely_unequal(gold, target):
        assert not verify(gold, target)
