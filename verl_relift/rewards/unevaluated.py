"""Answers that leave the work to the grader: math-verify would compute the sum or the integral and accept it."""

import re

from .exact import is_fraction, is_integer, plain_number
from .text import without_unit

_CALCULATION = re.compile(
    r"\\(?:operatorname\*?\{)?(sum|prod|i*int|lim|gcd|lcm|max|min|bmod|mod|pmod|det|lfloor|lceil)(?![a-zA-Z])"
)
_OPERATOR = re.compile(r"\\(?:times|cdot|div|ast)(?![a-zA-Z])|[×·÷∗:]")
_GROUPING = re.compile(r"\\(?:frac|sqrt)(?![a-zA-Z])")
_ARITHMETIC = re.compile(r"[0-9+\-*/^().,{}\[\]\s]+", re.ASCII)
# A number or a group, an operator or nothing, and another number or group: 7*2, 3--4, (3)(4), 2(3), {7}+2.
_OPERATION = re.compile(r"[0-9)}\]]\s*(?:[+\-*/]+\s*[0-9({]|\()|\)\s*[0-9]", re.ASCII)
_POWER = re.compile(
    r"-?(?:[\d.]+\s*\*\s*)?\d+\s*\^\s*(?:\d|\{\s*-?\d+\s*\}|\(\s*-?\d+\s*\))(?:\s*[+\-]\s*\d+)?", re.ASCII
)
_TWO_NUMBERS = re.compile(r"[+-]?[\d.]+(?: [\d.]+)+", re.ASCII)


def is_unevaluated(answer: str, truth: str) -> bool:
    r"""Return whether an answer is a calculation that its ground truth is not.

    Sums over an index, integrals, limits, gcd, lcm, max, min, mod, determinants and floors count as calculations unless
    the truth contains one of the same kind. If the truth is a plain number, so do arithmetic on numbers (`7*2+3-4`,
    `(3)(4)`, and `1 2`, which is read as 1+2) and a fraction where the truth is an integer. One power with at most one
    factor and one summand is a common way to write a number and is allowed: `1.5\cdot10^6`, `2^{10}-1`.

    Args:
        answer: tidied by `text.tidy`.
        truth: tidied by `text.tidy`.
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
