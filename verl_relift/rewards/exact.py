"""Numbers compared without a parser, in microseconds: integers, decimals and fractions of integers.

math-verify decides the same way wherever this module decides. docs/rewards.md lists the one exception, tiny decimals.
"""

import re
from fractions import Fraction

# Longer numbers go to the judge; Python refuses to convert ints above 4,300 digits.
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,400})"
_INTEGER = re.compile(rf"[+-]?{_DIGITS}", re.ASCII)
_DECIMAL = re.compile(rf"(?P<sign>[+-]?)(?P<whole>{_DIGITS}?)\.(?P<part>\d{{1,100}})", re.ASCII)
_FRACTION = re.compile(
    r"(?P<sign>-?)(?:\\frac\{(?P<p>-?\d{1,100})\}\{(?P<q>-?\d{1,100})\}|(?P<a>\d{1,100})/(?P<b>\d{1,100}))", re.ASCII
)
_SCIENTIFIC = re.compile(
    rf"(?P<factor>[+-]?(?:{_DIGITS}(?:\.\d{{1,100}})?|\.\d{{1,100}})) ?\\(?:cdot|times) ?10\^"
    r"(?:\{(?P<power>-?\d{1,3})\}|(?P<digit>\d))",
    re.ASCII,
)
# math-verify rounds both sides to 6 places if one is a decimal. Rounding cannot bridge a larger difference than this.
_ROUNDING = Fraction(2, 10**6)
# Below this value, 6 places hold fewer than 4 significant digits, so the comparison is relative.
_SMALL = Fraction(1, 10**3)
_RELATIVE = Fraction(1, 10**3)


def plain_number(latex: str) -> Fraction | None:
    r"""Return the value of an integer, a decimal, `a\cdot10^{n}` or a fraction of integers; None for anything else."""
    if _INTEGER.fullmatch(latex):
        return Fraction(int(latex.replace(",", "")))
    if match := _DECIMAL.fullmatch(latex):
        return Fraction(f"{match['sign']}{match['whole'].replace(',', '') or '0'}.{match['part']}")
    if match := _SCIENTIFIC.fullmatch(latex):
        return Fraction(match["factor"].replace(",", "")) * Fraction(10) ** int(match["power"] or match["digit"])
    if match := _FRACTION.fullmatch(latex):
        numerator, denominator = int(match["p"] or match["a"]), int(match["q"] or match["b"])
        if denominator == 0:
            return None
        return Fraction(-numerator if match["sign"] else numerator, denominator)
    return None


def is_integer(latex: str) -> bool:
    """Return whether the text is an integer, written as one."""
    return _INTEGER.fullmatch(latex) is not None


def is_fraction(latex: str) -> bool:
    """Return whether the text is a fraction of integers, written as one."""
    return _FRACTION.fullmatch(latex) is not None


def equal_numbers(answer: str, truth: str) -> bool | None:
    """Compare two plain numbers.

    Returns:
        Whether they are equal; None if either is not a plain number, or if they differ by no more than rounding.
    """
    expected, value = plain_number(truth), plain_number(answer)
    if expected is None or value is None:
        return None
    if value == expected:
        return True
    difference = abs(value - expected)
    if not _is_decimal(answer, truth) or difference > _ROUNDING:
        return False
    if abs(expected) < _SMALL:
        return difference <= _RELATIVE * abs(expected)
    return None


def _is_decimal(*numbers: str) -> bool:
    return any("." in number for number in numbers)
