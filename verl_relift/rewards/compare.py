"""One answer against one ground truth: decided here, or reduced to the pairs that the judge must compare."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from .exact import equal_numbers, plain_number
from .numeric import surely_different, value
from .options import decide_option, is_option
from .text import remarks, same_words, tidy, without_unit
from .unevaluated import is_unevaluated

Pair = tuple[str, str]
"""An answer and a ground truth, as LaTeX, equal if math-verify says so."""

_NAME = re.compile(r"^[a-zA-Z](?:_(?:[a-zA-Z0-9]|\{[a-zA-Z0-9]+\}))? ?= ?(?![^=]*=)")
_DEGREES = re.compile(r"\^(?:\\circ|\{\\circ\})$")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:%|percent)\s*\}|\bpercent)$")
_SIGN = re.compile(r"\s*\\?%")
_TWO_SIGNS = re.compile(r"%\s*\\?%")
# Not even tidied: a megabyte would take a tenth of a second.
_HOPELESS = 10
# With digits and these signs alone: no question mark and no dangling operator in any grammar.
_KEYPAD = re.compile(r"[0-9+\-*/=?().\s]+", re.ASCII)
_DANGLING = re.compile(r"\?|[+\-*/=]$")
_EQUALITY = re.compile(r"=|\\equiv(?![a-zA-Z])")


def compare(answer: str, truth: str, *, allow_unevaluated: bool, max_answer_chars: int) -> bool | tuple[Pair, ...]:
    """Decide, or return the pairs of which one must be equal for the answer to be right (never none).

    truth: tidy and not empty. An answer identical to the truth is right without being parsed.
    """
    if len(answer) > _HOPELESS * (max_answer_chars + len(truth)):
        return answer == truth
    answer = tidy(answer)
    if truth in (answer, answer[1:-1] if answer.startswith("(") and answer.endswith(")") else answer):
        return True
    if same_words(answer, truth):
        return True
    if is_option(truth):
        verdict = decide_option(answer, truth)
        if verdict is not None:
            return verdict
    if len(answer) > max_answer_chars:
        return False
    if _contradicts_itself(answer) or _TWO_SIGNS.search(answer):
        return False
    if remarks(answer) and not remarks(truth):
        return False
    if not allow_unevaluated and is_unevaluated(answer, truth):
        return False
    if _KEYPAD.fullmatch(answer) and _DANGLING.search(answer) and plain_number(truth) is not None:
        return False
    undecided: list[Pair] = []
    for reading in percent_readings(bare(answer, truth), truth):
        if reading[0] == reading[1]:
            return True
        equal = equal_numbers(*reading)
        if equal:
            return True
        if equal is None and not surely_different(*reading):
            undecided.append(reading)
    return tuple(undecided) or False


def bare(answer: str, truth: str) -> str:
    """A number without what math-verify takes off: `x=13`, `(13)`, `13\\text{ cm}`, `13^\\circ` beside the truth 13."""
    if "=" in truth:
        return answer
    number = _DEGREES.sub("", without_unit(_NAME.sub("", answer)))
    if number.startswith("(") and number.endswith(")"):
        number = number[1:-1]
    return answer if value(number) is None else number


def _contradicts_itself(answer: str) -> bool:
    """Whether an answer equates different numbers: of `x=12=13` math-verify would take the 13. A decimal may be rounded
    to the places that it has: `1/3=0.333`."""
    sides = (side.strip() for side in _EQUALITY.split(answer))
    numbers = [(number, _last_place(side)) for side in sides if (number := plain_number(side)) is not None]
    return any(abs(one - other) > max(place, other_place) for (one, place), (other, other_place) in pairwise(numbers))


def _last_place(number: str) -> Fraction:
    _, point, places = number.partition(".")
    return Fraction(1, 10 ** len(places)) if point else Fraction(0)


def percent_readings(answer: str, truth: str) -> tuple[Pair, ...]:
    """Pairs to compare instead, when a percent sign is involved: 5% is the 5 of 'what percentage' and the 0.05 of 'what
    fraction'; which is meant, only the question says."""
    bare_answer, bare_truth = _PERCENT.sub("", answer), _PERCENT.sub("", truth)
    if bare_answer == answer and bare_truth == truth:
        return ((answer, truth),)
    if bare_answer != answer and bare_truth != truth:
        # Both are percentages, perhaps lists of them.
        return ((_SIGN.sub("", answer), _SIGN.sub("", truth)),)
    if bare_answer != answer:
        return ((bare_answer, truth), (_hundredth(bare_answer), truth))
    return ((answer, bare_truth), (answer, _hundredth(bare_truth)))


def _hundredth(latex: str) -> str:
    value = plain_number(latex)
    if value is None:
        return rf"\frac{{{latex}}}{{100}}"
    value /= 100
    return f"{value.numerator}" if value.denominator == 1 else f"{value.numerator}/{value.denominator}"
