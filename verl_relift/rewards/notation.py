r"""Notations that math-verify misreads: numbers in a base, clock times, values of names, and approximations."""

import re
from collections.abc import Iterable
from fractions import Fraction

from .exact import plain_number
from .numeric import value
from .quantity import number_alone
from .text import unwrap_text, without_unit

_BASES = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)
_IN_BASE = re.compile(
    r"(?P<open>\()?(?P<digits>\d[\dA-Fa-f]*)(?(open)\))_"
    r"(?:(?P<digit>\d)|\{\(?(?P<base>\d{1,2}|[a-z]+)\)?\}|(?P<word>[a-z]+))"
)

_CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?(?::(?P<second>\d{2}))? ?(?P<half>[aApP]\.?[mM]\.?|o'clock)?", re.ASCII
)

_ASSIGNMENT = re.compile(r"(?P<name>\\?[a-zA-Z]+(?:_(?:[a-zA-Z0-9]|\{[a-zA-Z0-9]+\}))?) ?= ?(?P<value>[^=<>]+)")
_NAMED_TUPLE = re.compile(r"\((?P<names>[a-zA-Z_0-9{} ]+(?:,[a-zA-Z_0-9{} ]+)+)\) ?= ?\((?P<values>.+)\)")
_NAMED_POINT = re.compile(r"^[A-Z] ?=? ?(?=\()")
_AND = re.compile(r"\\(?:text|mathrm|mbox)\{ *(?:and|,|;) *\}|\\q?quad(?![a-zA-Z])|\band\b|;")
_ORDERED = ("xyz", "abcdefgh")  # names whose alphabetical order is the order of a tuple

# A term of a ratio: a number, a letter, or a product or power of them.
_TERM = re.compile(r"(?:\d[\d,.]*|\\(?:sqrt|frac|pi)|[a-z](?![a-z])|[{}^*/+() -])+", re.ASCII)
_NAME_ALONE = re.compile(r"(?!\\(?:pi|e)$|e$)\\?[a-zA-Z]+(?:_(?:\w|\{\w+\}))?", re.ASCII)


def decide_base(answer: str, truth: str) -> bool | None:
    r"""Compare numbers of which one is written in a base: `21_4` or `21_{\text{four}}`.

    An answer may leave out the base of the ground truth. In a ground truth without a base, the number is decimal.

    Returns:
        The verdict; None if neither text names a base.
    """
    mine, theirs = _in_base(answer), _in_base(truth)
    if theirs is not None:
        return mine == theirs if mine is not None else answer.upper() == theirs[0]
    if mine is None or (expected := plain_number(truth)) is None:
        return None
    try:
        return int(*mine) == expected
    except ValueError:
        return False


def _in_base(latex: str) -> tuple[str, int] | None:
    match = _IN_BASE.fullmatch(unwrap_text(latex).replace(" ", ""))
    if match is None:
        return None
    base = match["digit"] or match["base"] or match["word"]
    if not base.isdigit():
        if base not in _BASES:
            return None
        base = _BASES.index(base) + 2
    base = int(base)
    return (match["digits"].upper(), base) if 2 <= base <= 36 else None


def decide_clock(answer: str, truth: str) -> bool | None:
    """Compare an answer with a time of day: `5:00`, `3:05 PM`. `3:4` and `5:30` can be ratios and are left alone.

    Where only one side says AM or PM, the other may be on the clock of 12 or of 24 hours.

    Returns:
        The verdict; None if the ground truth is not surely a time of day.
    """
    expected = _clock(truth)
    if expected is None or not (expected[3] or (":" in truth and expected[1] < 10)):
        return None
    given = _clock(answer)
    if given is None or (":" not in answer and not given[3]):
        return False
    if given[1:3] != expected[1:3]:
        return False
    if given[3] and expected[3]:
        return _hour(given) == _hour(expected)
    return given[0] == expected[0] or _hour(given) == _hour(expected)


def _clock(latex: str) -> tuple[int, int, int, str] | None:
    """Return hour, minute, second and `a`, `p`, `o` or nothing."""
    match = _CLOCK.fullmatch(" ".join(unwrap_text(latex, " ").split()))
    if match is None:
        return None
    hour, minute, second = int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0)
    return (
        None if hour > 24 or minute > 59 or second > 59 else (hour, minute, second, (match["half"] or "")[:1].lower())
    )


def _hour(time: tuple[int, int, int, str]) -> int:
    """Return the hour on the clock of 24 hours."""
    if time[3] == "p" and time[0] < 12:
        return time[0] + 12
    return 0 if time[3] == "a" and time[0] == 12 else time[0]


def as_ratios(answer: str, truth: str) -> tuple[str, str] | None:
    """Write ratios as quotients: `3:4` and `3 to 4` are the same, and every term of `1:2:3` counts.

    Returns:
        Both texts, rewritten if the ground truth is a ratio or a fraction; None if the answer is wrong because it has
        another number of terms.
    """
    mine, theirs = _terms(answer), _terms(truth)
    if theirs is None:
        number = plain_number(truth)
        is_ratio = mine is not None and len(mine) == 2 and number is not None and number.denominator > 1
        return (_proportions(mine[::-1]) if is_ratio else answer), truth
    if mine is None:
        return None if len(theirs) > 2 else (answer, _proportions(theirs[::-1]))
    return (_proportions(mine[::-1]), _proportions(theirs[::-1])) if len(mine) == len(theirs) else None


def _terms(latex: str) -> list[str] | None:
    """Return the terms of a ratio; None for any other text."""
    if ":" not in latex and "to" not in latex:
        return None
    terms = [term.strip() for term in re.split(r":|\bto\b", unwrap_text(latex, " "))]
    return terms if len(terms) > 1 and all(map(_TERM.fullmatch, terms)) else None


def _proportions(terms: list[str]) -> str:
    """Return each other term divided by the first, as one quotient or a tuple."""
    first, *others = terms
    quotients = [_quotient(term, first) for term in others]
    return quotients[0] if len(quotients) == 1 else _tuple(quotients)


def _quotient(one: str, other: str) -> str:
    numerator, denominator = plain_number(one), plain_number(other)
    if numerator is None or not denominator:
        return rf"\frac{{{one}}}{{{other}}}"
    number = numerator / denominator
    return f"{number.numerator}/{number.denominator}" if number.denominator > 1 else str(number.numerator)


def as_tuples(answer: str, truth: str) -> tuple[str, str] | None:
    """Write the values of names as tuples, whose order counts: `y=7,x=3` becomes `(3,7)`.

    Returns:
        Both texts, rewritten if one of them gives values to several names; None if the answer is wrong because it gives
        values to other names or too few values.
    """
    if truth.startswith("("):
        answer = _NAMED_POINT.sub("", answer)
    mine, theirs = _assignments(answer), _assignments(truth)
    if mine is None and theirs is None:
        return answer, truth
    if mine is not None and theirs is not None:
        if mine.keys() != theirs.keys():
            return None
        names = sorted(theirs)
        return _tuple(mine[name] for name in names), _tuple(theirs[name] for name in names)
    if theirs is not None:
        bare = answer[1:-1] if answer.startswith("(") and answer.endswith(")") else answer
        if len(_split(bare)) != len(theirs):
            return (answer, truth) if "\\begin" in answer else None
        return f"({bare})", _tuple(_in_order(theirs))
    if truth.startswith("(") and truth.endswith(")") and len(_split(truth[1:-1])) == len(mine):
        return _tuple(_in_order(mine)), truth
    return answer, truth


def _assignments(latex: str) -> dict[str, str] | None:
    """Return the values of at least two different names; None for any other text."""
    if match := _NAMED_TUPLE.fullmatch(latex):
        names, values = _split(match["names"]), _split(match["values"])
        return dict(zip(names, values, strict=True)) if len(set(names)) == len(names) == len(values) else None
    if latex.count("=") < 2:
        return None
    found: dict[str, str] = {}
    parts = _split(_AND.sub(",", latex))
    for part in parts:
        match = _ASSIGNMENT.fullmatch(part)
        if match is None:
            return None
        found[match["name"]] = number_alone(without_unit(match["value"].strip()))
    return found if len(found) == len(parts) else None


def _in_order(values: dict[str, str]) -> list[str]:
    if any(set(values) <= set(letters) for letters in _ORDERED):
        return [values[name] for name in sorted(values)]
    return list(values.values())


def _tuple(values: Iterable[str]) -> str:
    return "(" + ",".join(values) + ")"


def _split(latex: str) -> list[str]:
    """Return the parts between commas outside brackets; a comma between groups of three digits separates nothing."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(latex):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0 and not re.match(r"\d{3}(?!\d)", latex[index + 1 :]):
            parts.append(latex[start:index].strip())
            start = index + 1
    parts.append(latex[start:].strip())
    return parts


def approximated(latex: str) -> tuple[str, ...] | None:
    r"""Return the values on the sides of `\approx`, without names: `x\approx\sqrt5\approx2.24` has two.

    Returns:
        None if the text has no `\approx`.
    """
    sides = [side.strip() for side in latex.split("\\approx")]
    if len(sides) == 1:
        return None
    return tuple(side for side in sides if side and not _NAME_ALONE.fullmatch(side)) or None


def consistent_sides(sides: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sides of an approximation that count as the answer.

    Where the exact side can be evaluated, the others must agree with it to the last place that they show. Where it
    cannot, only the exact side counts.

    Returns:
        Nothing if two sides contradict each other.
    """
    exact = value(sides[0])
    if exact is None:
        return sides[:1]
    for side in sides[1:]:
        rounded = value(side)
        if rounded is None or abs(rounded - exact) > _last_place(side) * (1 + 1e-9):
            return ()
    return sides


def _last_place(number: str) -> float:
    """Return how far rounding can move a number: one unit of its last decimal, or half of one if it has none."""
    point = number.rpartition(".")[2] if "." in number and plain_number(number) is not None else ""
    return float(Fraction(1, 10 ** len(point))) if point else 0.5
