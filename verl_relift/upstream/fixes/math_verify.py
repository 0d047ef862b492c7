"""What judge processes change in math-verify 0.9.0, latex2sympy2_extended 1.11.0 and sympy 1.14; each has a test that
fails when upstream no longer needs it. Nothing outside a judge process is changed."""

from __future__ import annotations

import re
from typing import Any

from antlr4.atn.ParserATNSimulator import ParserATNSimulator
from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended import latex2sympy2
from latex2sympy2_extended.antlr_parser import PSParser
from math_verify import grader as math_verify_grader
from sympy import Eq, Float, Integer
from sympy.parsing import sympy_parser

_INTEGER = re.compile(r"-?[0-9]+")
_FLOAT = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


class EvaluationError(RuntimeError):
    """Text other than a number was about to be evaluated."""


def apply() -> None:
    """Apply every change to this process."""
    parse_in_two_stages()
    read_numbers_without_eval()
    reject_equations_without_solutions()
    read_percentages()


def read_numbers_without_eval() -> None:
    """sympy makes numbers of text through `sympify`, that is Python's `eval`, and latex2sympy2_extended sends it every
    number of an answer. Numbers are read here instead; anything else that gets there is refused."""
    sympy_parser.parse_expr = number_from_text
    sympy_parser.eval_expr = _refuse


def number_from_text(text: str, *_: Any, **__: Any) -> Integer | Float:
    """What sympy's `parse_expr` returns for a number. Raises EvaluationError for other text."""
    if _INTEGER.fullmatch(text):
        return Integer(int(text))
    if _FLOAT.fullmatch(text):
        return Float(text)
    raise EvaluationError("only numbers are read from text")


def _refuse(*_: Any, **__: Any) -> None:
    raise EvaluationError("text is not evaluated")


def reject_equations_without_solutions() -> None:
    """math-verify compares the solutions of two equations one by one: with no solutions on either side it finds no
    difference, so `1=2` passes for `x^2=-1`."""
    compare = math_verify_grader.sympy_solve_and_compare

    def compare_solutions(gold: Any, pred: Any, *precision: int) -> bool:
        if isinstance(gold, Eq) and isinstance(pred, Eq):
            solve = math_verify_grader.solve
            if not solve(gold, gold.free_symbols) or not solve(pred, pred.free_symbols):
                return False
        return compare(gold, pred, *precision)

    math_verify_grader.sympy_solve_and_compare = compare_solutions


def read_percentages() -> None:
    """Let `5\\%` parse: the grammar built for antlr 4.9 (the version that hydra needs) lacks a token that the converter
    asks for before it comes to percentages."""
    if not hasattr(PSParser.AtomContext, "FUNC_GAMMA"):
        PSParser.AtomContext.FUNC_GAMMA = lambda _: None


# The one rule where the cheap look-ahead takes the wrong turn on everyday input: the index and the power of `x^{2}+1`.
_LOOKS_AHEAD = frozenset(
    decision
    for decision, state in enumerate(PSParser.atn.decisionToState)
    if state.ruleIndex == PSParser.RULE_atom_expr
)


class _Prediction(ParserATNSimulator):
    """Look-ahead without the context of the calling rules (SLL), but for the rule that needs it; or all with it."""

    in_context = False

    def adaptivePredict(self, tokens: Any, decision: int, context: Any) -> int:
        full = self.in_context or decision in _LOOKS_AHEAD
        self.predictionMode = PredictionMode.LL if full else PredictionMode.SLL
        return super().adaptivePredict(tokens, decision, context)


class _TwoStageParser(PSParser):
    """antlr's two-stage parsing: without context an input parses to the same tree as with it or does not parse at all
    (antlr's own guarantee), and only then is the slow look-ahead needed."""

    def math(self) -> Any:
        self._input.fill()  # what is no token fails here, once: a lexer that goes on after it would skip it
        self._interp = _Prediction(self, self.atn, self.decisionsToDFA, self.sharedContextCache)
        try:
            return super().math()
        except MemoryError:
            raise
        except Exception:  # what latex2sympy2_extended's listener raises of a syntax error
            self.reset()
            self._interp.in_context = True
            return super().math()


def parse_in_two_stages() -> None:
    """latex2sympy2_extended has antlr use full-context look-ahead, which antlr does not cache and which takes three
    quarters of the time of parsing."""
    latex2sympy2.PSParser = _TwoStageParser
