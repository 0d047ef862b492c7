"""Two-stage parsing of LaTeX by antlr, in judge processes."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from antlr4.atn.ParserATNSimulator import ParserATNSimulator
from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended.antlr_parser import PSParser

from ..registry import Where, patch, replace

# The one rule where the cheap look-ahead takes the wrong turn on everyday input: the index and the power of `x^{2}+1`.
_LOOKS_AHEAD = frozenset(
    decision
    for decision, state in enumerate(PSParser.atn.decisionToState)
    if state.ruleIndex == PSParser.RULE_atom_expr
)


class _Prediction(ParserATNSimulator):
    """Look-ahead without the context of the calling rules (SLL), except for the rule that needs it; or all with it."""

    in_context = False

    def adaptivePredict(self, tokens: Any, decision: int, context: Any) -> int:
        full = self.in_context or decision in _LOOKS_AHEAD
        self.predictionMode = PredictionMode.LL if full else PredictionMode.SLL
        return super().adaptivePredict(tokens, decision, context)


class TwoStageParser(PSParser):
    """antlr's two-stage parsing: without context an input parses to the same tree as with it or does not parse at all
    (antlr's own guarantee), and only then is the slow look-ahead needed."""

    def math(self) -> Any:
        self._input.fill()  # what is not a token fails here; the lexer would skip it if it continued
        self._interp = _Prediction(self, self.atn, self.decisionsToDFA, self.sharedContextCache)
        try:
            return super().math()
        except MemoryError:
            raise
        except Exception:  # what latex2sympy2_extended's listener raises of a syntax error
            self.reset()
            self._interp.in_context = True
            return super().math()


@patch(
    where=Where.JUDGE,
    replaces=("latex2sympy2_extended.latex2sympy2:PSParser",),
    versions=("latex2sympy2_extended", "antlr4-python3-runtime"),
    upstream="has antlr use full-context look-ahead, which antlr does not cache and which takes three quarters of the "
    "time of parsing",
    canary="test_upstream_looks_ahead_in_full_context",
)
def parse_in_two_stages(latex2sympy2: ModuleType) -> None:
    replace(latex2sympy2, "PSParser", TwoStageParser)
