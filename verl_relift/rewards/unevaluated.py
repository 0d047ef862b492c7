"""Answers that leave the work to the grader: math-verify does the sum, the integral or the gcd and calls it right."""

from __future__ import annotations

import re

from .exact import is_fraction, is_integer, plain_number
from .text import without_unit

_CALCULATION = re.compile(
    r"\\(?:operatorname\*?\{)?(sum|prod|i*int|lim|gcd|lcm|max|min|bmod|mod|pmod|det|lfloor|lceil)(?![a-zA-Z])"
)
_OPERATOR = re.compile(r"\\(?:times|cdot|div|ast)(?![a-zA-Z])|[×·÷∗:]")
_GROUPING = re.compile(r"\\(?:frac|sqrt)(?![a-zA-Z])")
_ARITHMETIC = re.compile(r"[0-9+\-*/^().,{}\[\]\s]+", re.ASCII)
# A number or a group, an operator or nothing, and another: 7*2, 3--4, (3)(4), 2(3), {7}+2.
_OPERATION = re.compile(r"[0-9)}\]]\s*(?:[+\-*/]+\s*[0-9({]|\()|\)\s*[0-9]", re.ASCII)
_POWER = re.compile(
    r"-?(?:[\d.]+\s*\*\s*)?\d+\s*\^\s*(?:\d|\{\s*-?\d+\s*\}|\(\s*-?\d+\s*\))(?:\s*[+\-]\s*\d+)?", re.ASCII
)
_TWO_NUMBERS = re.compile(r"[+-]?[\d.]+(?: [\d.]+)+", re.ASCII)


def is_unevaluated(answer: str, truth: str) -> bool:
    """Whether an answer (both tidy) is a calculation that its ground truth is not.

    Sums over an index, integrals, limits, gcd, lcm, max, min, mod, determinants, floors: where the truth has none of
    the kind. Where the truth is a plain number, also arithmetic on numbers: `7*2+3-4`, `(3)(4)`, `1 2` (read as 1+2),
    and a fraction for an integer. One power with at most one factor and one summand is a usual way to write a number
    and is allowed: `1.5\\cdot10^6`, `2^{10}-1`.
    """
    if set(_CALCULATION.findall(answer)) - set(_CALCULATION.findall(truth)):
        return True
    if plain_number(truth) is None:
        return False
    result = without_unit(answer.rpartition("=")[2].strip())
    if is_fraction(result):
        return is_integer(truth)
    if _TWO_NUMBERS.fullmatch(result):
        return True
    plain = _GROUPING.sub("", _OPERATOR.sub("*", result))
    return bool(_ARITHMETIC.fullmatch(plain) and not _POWER.fullmatch(plain) and _OPERATION.search(plain))
