r"""Closed forms told apart by their values: `\frac{67\pi}{3}` differs from `2\sqrt{2}`, and that needs no algebra.

This module decides only that two forms differ, and only by a wide margin. Forms that look equal go to the judge. Only
forms with a single reading are evaluated: numbers, fractions, roots, powers, pi, the four operations and brackets.
"""

import math
import re
from itertools import pairwise

# math-verify compares decimals to 6 places and everything else exactly, so this margin is far above its tolerance.
_MARGIN = 1e-4
_MAX_MAGNITUDE = 1e12
_MAX_TOKENS = 80

_TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\(?:frac|sqrt|pi|cdot|times)(?![a-zA-Z])|[-+*/^(){}\[\]]", re.ASCII)
_THOUSANDS = re.compile(r"\d,\d{3}(?!\d)", re.ASCII)
_BRACKETED = re.compile(r"(?:\\\{|[(\[])(?P<inner>.*)(?:\\\}|[)\]])")
_OPERATORS = {"*": "*", "\\cdot": "*", "\\times": "*", "/": "/"}


class _UnreadableError(ValueError):
    """The text is not a closed form with a single reading."""


def surely_different(answer: str, truth: str) -> bool:
    """Return whether two numbers, or two lists of numbers in any brackets, differ in count or in value.

    Returns:
        False also where the texts cannot be evaluated or the values are close.
    """
    mine, theirs = _read(answer), _read(truth)
    if mine is None or theirs is None:
        return False
    counts = _count_distinct(mine), _count_distinct(theirs)
    if None not in counts and counts[0] != counts[1]:
        return True
    return len(mine) == len(theirs) and any(map(_far, sorted(mine), sorted(theirs)))


def value(latex: str) -> float | None:
    """Return the value of one closed form; None for anything else."""
    tokens = _TOKEN.findall(latex)
    if not tokens or len(tokens) > _MAX_TOKENS or "".join(tokens) != latex.replace(" ", ""):
        return None
    if re.search(r"[0-9.] +[0-9.]", latex):  # two numbers side by side are a list, a mixed number, or a typo
        return None
    try:
        parser = _Parser(tokens)
        result = parser.sum()
        if parser.position != len(tokens):
            return None
    except (_UnreadableError, ArithmeticError):
        return None
    return result if math.isfinite(result) and abs(result) < _MAX_MAGNITUDE else None


def _read(latex: str) -> list[float] | None:
    """Return the values of a list, with or without brackets, or of one number; None if any cannot be evaluated."""
    if _THOUSANDS.search(latex):
        return None
    if "," in latex and (match := _BRACKETED.fullmatch(latex)):
        latex = match["inner"]
    values = [value(part.strip()) for part in latex.split(",")]
    return None if None in values else values


def _count_distinct(values: list[float]) -> int | None:
    """Return the number of distinct values; None if two of them are too close to tell apart."""
    ordered = sorted(values)
    distinct = 1
    for one, other in pairwise(ordered):
        if one != other and not _far(one, other):
            return None
        distinct += one != other
    return distinct


def _far(one: float, other: float) -> bool:
    difference = abs(one - other)
    return difference > _MARGIN and difference > _MARGIN * max(abs(one), abs(other))


class _Parser:
    """A recursive-descent evaluator over the tokens of one closed form."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0

    @property
    def next(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        token = self.next
        if not token or (expected and token not in expected):
            raise _UnreadableError(token)
        self.position += 1
        return token

    def sum(self) -> float:
        sign = -1.0 if self.next in ("+", "-") and self.take() == "-" else 1.0
        total = sign * self.product()
        while self.next in ("+", "-"):
            sign = -1.0 if self.take() == "-" else 1.0
            total += sign * self.product()
        return total

    def product(self) -> float:
        result, divided = self.power(), False
        while True:
            if self.next in _OPERATORS:
                divided = _OPERATORS[self.take()] == "/"
                factor = self.power()
                result = result / factor if divided else result * factor
            elif self.next in ("\\sqrt", "\\pi") and not divided:
                result *= self.power()  # a root or pi next to a factor; 1/2\pi has two readings
            elif self.next not in ("", "+", "-", ")", "}", "]"):
                raise _UnreadableError(self.next)  # 3\frac{1}{2} is a mixed number; math-verify reads 3(2) as one
            else:
                return result

    def power(self) -> float:
        base = self.base()
        if self.next != "^":
            return base
        self.take("^")
        exponent = self.group() if self.next == "{" else float(self.digit())
        if base == 0 or (base < 0 and exponent != int(exponent)) or self.next == "^":
            raise _UnreadableError("power")
        return base**exponent

    def base(self) -> float:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            return float(token)
        if token == "\\pi":
            return math.pi
        if token == "\\frac":
            return self.group() / self.group()
        if token == "\\sqrt":
            return self.root()
        if token == "(":
            inside = self.sum()
            self.take(")")
            return inside
        raise _UnreadableError(token)

    def root(self) -> float:
        degree = 2.0
        if self.next == "[":
            self.take("[")
            degree = self.sum()
            self.take("]")
        radicand = self.group()
        if radicand < 0 or degree <= 0:
            raise _UnreadableError("root")
        return radicand ** (1 / degree)

    def group(self) -> float:
        self.take("{")
        inside = self.sum()
        self.take("}")
        return inside

    def digit(self) -> str:
        token = self.take()
        if len(token) != 1 or not token.isdigit():
            raise _UnreadableError(token)  # LaTeX reads 2^10 without braces as (2^1)0
        return token
