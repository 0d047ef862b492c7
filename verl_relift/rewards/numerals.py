r"""Numerals in one notation: `2.5e7`, `1 1/2` and `0.\overline{6}` as LaTeX that every later rule reads the same way.

math-verify reads the e of `2.5e7` as Euler's number, `1 1/2` as a sum with a product, and no bar over decimals.
"""

import re
from fractions import Fraction

_EXPONENT = re.compile(r"(?<![\w.}^\\])(\d+(?:\.\d+)?|\.\d+)[eE]([+-]?\d{1,3})(?![\w.{^])", re.ASCII)
_MIXED = re.compile(r"(?<![\w./^}])(\d{1,9}) (\d{1,9})/(\d{1,9})(?![\w/.^])", re.ASCII)
_MIXED_FRACTION = re.compile(r"(?<![\w.}^])(\d{1,9}) ?\\frac\{(\d{1,9})\}\{(\d{1,9})\}(?![\^])", re.ASCII)
_BAR = r"\\(?:overline|bar|dot)(?:\{(\d{1,12})\}|(\d))"
_REPEATING = re.compile(r"(?<![\w.])(\d{0,12})\.(\d{0,12})" + _BAR + r"(?![\d.])", re.ASCII)
_IN_BRACKETS = re.compile(r"(?<![\w.])(\d{1,12}\.\d{0,12})\((\d{1,12})\)(?![\w.(^])", re.ASCII)


# `6.02 x 10^23` and `4*10^-5`: a power of several digits or with a sign belongs together.
_TIMES_TEN = re.compile(r"(?<=\d) ?(?:[xX*]|\\times|\\cdot) ?(?=10\^)", re.ASCII)
_BARE_POWER = re.compile(r"\^(-\d+|\d{2,})(?![\d.])", re.ASCII)


def spell_numerals(latex: str) -> str:
    r"""Return the text with its numerals as products and fractions: `2.5\cdot10^{7}`, `\frac{3}{2}`, `\frac{2}{3}`.

    A letter e is an exponent only between digits, so `2e^3` and `3e` keep Euler's number. A whole number before a
    fraction is a mixed number only if the fraction is proper.
    """
    if "." in latex and "(" in latex:
        latex = _IN_BRACKETS.sub(r"\1\\overline{\2}", latex)
    if "^" in latex:
        latex = _BARE_POWER.sub(r"^{\1}", _TIMES_TEN.sub(r"\\cdot", latex))
    if "e" in latex or "E" in latex:
        latex = _EXPONENT.sub(lambda match: rf"{match[1]}\cdot10^{{{int(match[2])}}}", latex)
        latex = _REPEATING.sub(_repeating, latex)
    elif "\\bar" in latex or "\\dot" in latex:
        latex = _REPEATING.sub(_repeating, latex)
    if "\\frac" in latex:
        latex = _MIXED_FRACTION.sub(_mixed, latex)
    return _MIXED.sub(_mixed, latex) if "/" in latex else latex


def _mixed(match: re.Match[str]) -> str:
    whole, numerator, denominator = map(int, match.groups())
    if not 0 < numerator < denominator:
        return match[0]
    return _fraction(Fraction(whole * denominator + numerator, denominator))


def _repeating(match: re.Match[str]) -> str:
    whole, fixed, period = match[1] or "0", match[2], match[3] or match[4]
    shown = Fraction(int(whole + fixed), 10 ** len(fixed))
    return _fraction(shown + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed)))


def _fraction(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
