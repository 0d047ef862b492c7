"""One answer against one ground truth: the verdict, or the pairs that the judge must compare."""

import re
from fractions import Fraction
from itertools import pairwise

from .degrees import in_radians
from .exact import equal_numbers, plain_number
from .inequalities import as_intervals
from .letters import same_marks, with_distinct_cases
from .notation import approximated, as_ratios, as_tuples, consistent_sides, decide_base, decide_clock
from .numeric import surely_different, value
from .options import decide_option, is_option
from .quantity import decide_quantities, number_alone
from .text import dollars, is_roman, remarks, same_words, squeezed, tidy, without_unit
from .unevaluated import is_unevaluated
from .units import unit

Pair = tuple[str, str]
"""An answer and a ground truth, as LaTeX, which are equal if math-verify says that they are."""

_NAME = re.compile(r"^[a-zA-Z](?:_(?:[a-zA-Z0-9]|\{[a-zA-Z0-9]+\}))? ?= ?(?![^=]*=)")
_DEGREES = re.compile(r"\^(?:\\circ|\{\\circ\}) ?[CF]?$")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:%|percent)\s*\}|\bpercent)$")
_SIGN = re.compile(r"\s*\\?%")
_UNIT_NAME = r"[a-zA-Z]+(?:\^\{?\d\}?)?"
_UNIT_BEHIND = re.compile(
    rf"(?:(?<=[)}}])|(?<=\\sqrt\d))(?:[ ~]|\\[,;: ])+(?P<unit>{_UNIT_NAME}(?:/{_UNIT_NAME})?)\.?$"
)
_TWO_SIGNS = re.compile(r"%\s*\\?%")
# An answer longer than this multiple of the limit is not even tidied: a megabyte would take a tenth of a second.
_HOPELESS = 10
# An answer made of these characters alone is not mathematics if it has a question mark or a dangling operator.
_KEYPAD = re.compile(r"[0-9+\-*/=?().\s]+", re.ASCII)
_DANGLING = re.compile(r"\?|[+\-*/=]$")
_INDIAN = re.compile(r"-?\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?", re.ASCII)  # 12,34,567
_EQUALITY = re.compile(r"=|\\equiv(?![a-zA-Z])")


def compare(answer: str, truth: str, *, allow_unevaluated: bool, max_answer_chars: int) -> bool | tuple[Pair, ...]:
    """Compare an answer with a ground truth without parsing them as mathematics.

    Args:
        answer: the extracted answer, as LaTeX.
        truth: one ground truth, tidied by `text.tidy` and not empty.
        allow_unevaluated: whether a calculation counts as an answer.
        max_answer_chars: a longer answer is wrong unless it equals the truth's own text.

    Returns:
        The verdict if it is certain. Otherwise the pairs, at least one, of which any must be equal for the answer to be
        correct.
    """
    if len(answer) > _HOPELESS * (max_answer_chars + len(truth)):
        return answer == truth
    answer = tidy(_with_unit(dollars(answer) if "cent" in truth else answer, truth))
    if _same_text(answer, truth):
        return True
    if is_roman(truth):
        return False
    if is_option(truth):
        verdict = decide_option(answer, truth)
        if verdict is not None:
            return verdict
    if len(answer) > max_answer_chars or approximated(truth) is not None:
        return False
    sides = approximated(answer)
    if sides is None:
        return _compare_tidy(answer, truth, allow_unevaluated)
    verdicts = [_compare_tidy(side, truth, allow_unevaluated) for side in consistent_sides(sides)]
    return True if True in verdicts else tuple(pair for verdict in verdicts for pair in verdict or ()) or False


def _with_unit(answer: str, truth: str) -> str:
    r"""Set a unit that stands behind a root, a fraction or a bracket upright: `\sqrt{2} m` as `\sqrt{2}\text{ m}`.

    Without the space, or where the ground truth is no number, the letters are variables.
    """
    match = _UNIT_BEHIND.search(answer)
    if match is None or not (unit(match["unit"]) or match["unit"] in ("unit", "units")):
        return answer
    number = number_alone(truth)
    if plain_number(number) is None and value(number) is None:
        return answer
    return f"{answer[: match.start()]}\\text{{ {match['unit']}}}"


def _same_text(answer: str, truth: str) -> bool:
    if truth in (answer, answer[1:-1] if answer.startswith("(") and answer.endswith(")") else answer):
        return True
    return same_words(answer, truth) or squeezed(answer) == squeezed(truth)


def _compare_tidy(answer: str, truth: str, allow_unevaluated: bool) -> bool | tuple[Pair, ...]:
    for decide in (decide_base, decide_clock, decide_quantities):
        verdict = decide(answer, truth)
        if verdict is not None:
            return verdict
    if _contradicts_itself(answer) or _TWO_SIGNS.search(answer):
        return False
    if (remarks(answer) and not remarks(truth)) or not same_marks(answer, truth):
        return False
    for rewrite in (as_ratios, as_intervals, as_tuples):
        rewritten = rewrite(answer, truth)
        if rewritten is None:
            return False
        answer, truth = rewritten
    answer, truth = in_radians(*with_distinct_cases(bare(answer, truth), number_alone(truth)))
    if _INDIAN.fullmatch(answer) and plain_number(truth) is not None:
        answer = answer.replace(",", "")
    if not allow_unevaluated and is_unevaluated(answer, truth):
        return False
    if _KEYPAD.fullmatch(answer) and _DANGLING.search(answer) and plain_number(truth) is not None:
        return False
    undecided: list[Pair] = []
    for reading in percent_readings(answer, truth):
        if reading[0] == reading[1]:
            return True
        equal = equal_numbers(*reading)
        if equal:
            return True
        if equal is None and not surely_different(*reading):
            undecided.append(reading)
    return tuple(undecided) or False


def bare(answer: str, truth: str) -> str:
    r"""Return a number without what math-verify ignores: `x=13`, `(13)`, `13\text{ cm}` and `13^\circ` are all 13."""
    if "=" in truth:
        return answer
    number = _DEGREES.sub("", without_unit(number_alone(_NAME.sub("", answer))))
    if number.startswith("(") and number.endswith(")"):
        number = number[1:-1]
    return answer if plain_number(number) is None and value(number) is None else number


def _contradicts_itself(answer: str) -> bool:
    """Return whether an answer equates different numbers: math-verify would take the 13 from `x=12=13`.

    A decimal may be rounded to the places it shows: `1/3=0.333` is no contradiction.
    """
    sides = (side.strip() for side in _EQUALITY.split(answer))
    numbers = [(number, _last_place(side)) for side in sides if (number := plain_number(side)) is not None]
    return any(abs(one - other) > max(place, other_place) for (one, place), (other, other_place) in pairwise(numbers))


def _last_place(number: str) -> Fraction:
    _, point, places = number.partition(".")
    return Fraction(1, 10 ** len(places)) if point else Fraction(0)


def percent_readings(answer: str, truth: str) -> tuple[Pair, ...]:
    """Return the pairs to compare when a percent sign is involved.

    5% is 5 if the question asks "what percentage" and 0.05 if it asks "what fraction". Only the question tells which
    one is meant, so both readings are compared.
    """
    bare_answer, bare_truth = _PERCENT.sub("", answer), _PERCENT.sub("", truth)
    if bare_answer == answer and bare_truth == truth:
        return ((answer, truth),)
    if bare_answer != answer and bare_truth != truth:
        # Both sides are percentages or lists of percentages.
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
