"""What judge processes change in math-verify, latex2sympy2_extended and sympy. Nothing outside them is changed."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

from math_verify import grader as math_verify_grader
from sympy import Eq, Float, Integer

from ..registry import Where, add, patch, replace
from ..speed.latex_parser import parse_in_two_stages

_INTEGER = re.compile(r"-?[0-9]+")
_FLOAT = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


class EvaluationError(RuntimeError):
    """Text other than a number was about to be evaluated."""


def apply() -> None:
    """Apply every change to this process.

    Raises:
        UnsupportedVersion: an upstream package is of a version that the changes were not written for.
    """
    parse_in_two_stages()
    read_numbers_without_eval()
    reject_equations_without_solutions()
    read_percentages()


@patch(
    where=Where.JUDGE,
    replaces=("sympy.parsing.sympy_parser:parse_expr", "sympy.parsing.sympy_parser:eval_expr"),
    versions=("sympy", "latex2sympy2_extended"),
    upstream="sympy makes numbers of text through `sympify`, which is Python's `eval`, and latex2sympy2_extended sends "
    "it every number of an answer; here numbers are read, and anything else that gets there is refused",
    canary="test_upstream_evaluates_the_numbers_of_an_answer",
)
def read_numbers_without_eval(sympy_parser: ModuleType) -> None:
    replace(sympy_parser, "parse_expr", number_from_text)
    replace(sympy_parser, "eval_expr", _refuse)


def number_from_text(text: str, *_: Any, **__: Any) -> Integer | Float:
    """What sympy's `parse_expr` returns for a number.

    Raises:
        EvaluationError: for other text.
    """
    if _INTEGER.fullmatch(text):
        return Integer(int(text))
    if _FLOAT.fullmatch(text):
        return Float(text)
    raise EvaluationError("only numbers are read from text")


def _refuse(*_: Any, **__: Any) -> None:
    raise EvaluationError("text is not evaluated")


@patch(
    where=Where.JUDGE,
    replaces=("math_verify.grader:sympy_solve_and_compare",),
    versions=("math-verify",),
    upstream="compares the solutions of two equations one by one; with no solutions on either side it finds no "
    "difference, so `1=2` passes for `x^2=-1`",
    canary="test_upstream_accepts_any_equation_without_solutions",
)
def reject_equations_without_solutions(grader: ModuleType) -> None:
    compare = grader.sympy_solve_and_compare

    def compare_solutions(gold: Any, pred: Any, *precision: int) -> bool:
        if isinstance(gold, Eq) and isinstance(pred, Eq):
            solve = math_verify_grader.solve
            if not solve(gold, gold.free_symbols) or not solve(pred, pred.free_symbols):
                return False
        return compare(gold, pred, *precision)

    replace(grader, "sympy_solve_and_compare", compare_solutions)


@patch(
    where=Where.JUDGE,
    adds=("latex2sympy2_extended.gen.antlr4_9_3.PSParser:PSParser.AtomContext.FUNC_GAMMA",),
    versions=("latex2sympy2_extended", "antlr4-python3-runtime"),
    upstream="the grammar built for antlr 4.9, the version that hydra needs, lacks a token that the converter asks for "
    "before it comes to percentages, so `5\\%` does not parse",
    canary="test_upstream_does_not_read_percentages",
)
def read_percentages(grammar: ModuleType) -> None:
    add(grammar.PSParser.AtomContext, "FUNC_GAMMA", lambda _: None)
