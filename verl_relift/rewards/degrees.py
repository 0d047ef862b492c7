r"""Angles in degrees in trigonometric functions: math-verify reads `\sin60^\circ` as the sine of 60 radians."""

import re
from fractions import Fraction

from .exact import plain_number

_FUNCTION = r"\\(?:sin|cos|tan|cot|sec|csc)(?:\^(?:\{-?\d\}|\d))?"
_ANGLE = r"(?P<degrees>\d{1,6}(?:\.\d{1,6})?) ?\^ ?(?:\{ ?\\circ ?\}|\\circ(?![a-zA-Z]))(?! ?[\d.])"
_ANGLES = re.compile(rf"(?<![\d.]){_ANGLE}", re.ASCII)
_OF_ANGLE = re.compile(rf"(?P<function>{_FUNCTION}) ?(?P<open>\{{)?{_ANGLE}(?(open)\}})", re.ASCII)
_OF_BRACKET = re.compile(rf"({_FUNCTION}) ?\(([^()]*\\circ[^()]*)\)", re.ASCII)


def in_radians(answer: str, truth: str) -> tuple[str, str]:
    r"""Write angles in degrees as multiples of pi: `\sin60^\circ` as `\sin(\frac{\pi}{3})`.

    Not where the ground truth is a plain number: `\sin30^\circ` for one half leaves the work to the grader.
    """
    if "\\circ" not in answer + truth or plain_number(truth) is not None:
        return answer, truth
    return _radians(answer), _radians(truth)


def _radians(latex: str) -> str:
    latex = _OF_BRACKET.sub(lambda match: f"{match[1]}({_ANGLES.sub(_multiple, match[2])})", latex)
    return _OF_ANGLE.sub(lambda match: f"{match['function']}({_multiple(match)})", latex)


def _multiple(match: re.Match[str]) -> str:
    share = Fraction(match["degrees"]) / 180
    if share.numerator == 0:
        return "0"
    top = "\\pi" if share.numerator == 1 else f"{share.numerator}\\pi"
    return top if share.denominator == 1 else rf"\frac{{{top}}}{{{share.denominator}}}"
