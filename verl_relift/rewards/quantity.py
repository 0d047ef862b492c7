r"""Numbers with units and words: `8 books`, `30\text{ km}, 45\text{ km}`, `1\text{ h }15\text{ min}`, `5 million`.

math-verify drops everything after the first unit, so it reads `1\text{ h }15\text{ min}` as 1. Here a text is a
sequence of numbers, each with the words after it.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from .exact import equal_numbers, plain_number
from .numeric import value
from .text import REMARK_WORDS, unwrap_text
from .units import Dimension, simple_unit, unit

_LONGEST = 300
_NUMBER = (
    r"-?(?:\\frac\{\d{1,30}\}\{\d{1,30}\}|\d{1,30}/\d{1,30}|(?:\d{1,3}(?:,\d{3})+|\d{1,30})(?:\.\d{1,30})?|\.\d{1,30})"
)
_POWER = r"(?: ?\^ ?(?:\{-?\d\}|-?\d)|[²³]|(?<=[a-zA-Z])\d(?!\d))?"
_WORD = rf"[^\W\d_](?:[^\W\d_]|[.'’-](?=[^\W\d_]))*\.?{_POWER}"
_WORDS = rf"{_WORD}(?: ?(?:/|\\cdot|·| ) ?{_WORD})*"
_ITEM = re.compile(rf"(?P<number>{_NUMBER})(?P<gap> ?)(?:\((?P<aside>{_WORDS})\)|(?P<words>{_WORDS}))?")
_SEPARATOR = re.compile(r" ?(?:[,;&] ?(?:(?:and|or) )?|\b(?:and|or)\b ?) ?")
_JOINED = re.compile(r"(?:^|(?<= ))(?:and|or)$")
_CLOSED_FORM = re.compile(
    r"(?P<number>[^a-zA-Z]*(?:\\(?:frac|sqrt|pi|cdot|times)(?![a-zA-Z])[^a-zA-Z]*)*)"
    rf"(?: (?P<words>{_WORDS})|(?<=[0-9)}}])(?P<glued>{_WORDS}))"
)

_MULTIPLIERS = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
# Words that make a number another number, or no answer.
_NOT_UNITS = REMARK_WORDS | frozenset(
    (
        *("pi", "theta", "alpha", "beta", "gamma", "delta", "lambda", "sigma", "omega", "phi", "infty", "infinity"),
        *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"),
        *("log", "ln", "lg", "exp", "sqrt", "frac", "cdot", "mod", "gcd", "lcm", "max", "lim", "choose"),
        *("factorial", "squared", "cubed", "times", "plus", "minus", "over", "percent"),
        *("if", "for", "when", "where", "and"),
    )
)
# Capital letters before a word belong to its name, `US dollars`, `AA batteries`; no word follows a product.
_ABBREVIATION = re.compile(r"[A-Z]{2,4}")
_AMERICAN = re.compile(r"^USA? (?=[a-z])")
# Units of two letters that may follow a number without a space; mg and ms may be products.
_GLUED = frozenset(("cm", "mm", "km", "dm", "kg", "ft", "yd", "lb", "oz"))
# What `\frac{\text{m}}{\text{s}^2}` and `60^\circ` are in words.
_UNIT_FRACTION = re.compile(r"\\frac\{ ?(\\[a-z]+\{[^{}]*\})\}\{ ?(\\[a-z]+\{[^{}]*\}(?:\^\{?\d\}?)?)\}")
_DEGREE_SIGN = re.compile(r"\^ ?(?:\{\\circ\}|\\circ)(?! ?[CFK]\b)")
# Two values of one amount in different units are equal if they differ by no more than floating-point error.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and the words after it.

    Attributes:
        number: LaTeX of the number; words such as `million` have been multiplied in.
        words: the unit or the things counted; empty if there are none.
    """

    number: str
    words: str = ""

    @property
    def size(self) -> tuple[Dimension, Fraction | float] | None:
        """The dimension and the amount in its base units; None if the unit is unknown or the number has no value."""
        known = unit(self.words)
        if known is None:
            return None
        number = plain_number(self.number)
        number = value(self.number) if number is None else number
        return None if number is None else (known[1], number * known[0])

    @property
    def label(self) -> str:
        """The things counted, in the singular."""
        return self.words.casefold().removesuffix("s")


def quantities(latex: str) -> tuple[Quantity, ...] | None:
    """Read a text as numbers with words after them, separated by commas, `and`, `or`, or only by their units.

    Args:
        latex: tidied by `text.tidy`.

    Returns:
        The quantities in the order of the text; None if the text is anything else, or if no number has words.
    """
    if len(latex) > _LONGEST or not any(map(str.isalpha, latex)):
        return None
    text = _DEGREE_SIGN.sub(" degrees", _UNIT_FRACTION.sub(r"\1/\2", latex))
    text = " ".join(unwrap_text(text, " ").split())
    if (match := _CLOSED_FORM.fullmatch(text)) and not re.fullmatch(_NUMBER, match["number"].strip()):
        number, words = match["number"].strip(), match["words"] or match["glued"]
        read = value(number) is not None and _is_unit(words, " " if match["words"] else "")
        return (Quantity(number, words),) if read else None
    found: list[Quantity] = []
    position = 0
    while True:
        match = _ITEM.match(text, position)
        if match is None:
            return None
        words = match["aside"] or match["words"] or ""
        joined = match["aside"] is None and _JOINED.search(words)
        if joined:
            words = words[: joined.start()].rstrip()
        words = _AMERICAN.sub("", words)
        if words and not _is_unit(words, match["gap"] or " " * bool(match["aside"])):
            return None
        found.append(_quantity(match["number"], words))
        position = match.end()
        if position == len(text):
            return tuple(found) if any(item.words for item in found) else None
        separator = _SEPARATOR.match(text, position)
        if separator is not None:
            position = separator.end()
        elif joined or (words and text[position] == " "):
            position += text[position] == " "
        else:
            return None


def decide_quantities(answer: str, truth: str) -> bool | None:
    """Compare two texts of which at least one is several quantities, or two quantities with known units.

    Units are converted, so 75 minutes are 1 hour and 15 minutes, and a unit of another kind makes an answer wrong.
    Several quantities match in any order. An answer may leave a unit out if the ground truth lists independent
    quantities (`30 km, 45 km`), and what is counted if it keeps the order (`3 red and 2 blue` by `3, 2`). Inside one
    amount (`1 h 15 min`) it may only give the whole amount in the first unit (1.25).

    Returns:
        The verdict; None if neither text is several quantities and their units do not tell them apart.
    """
    mine, theirs = quantities(answer), quantities(truth)
    if theirs is None:
        # A plain ground truth is never answered by two quantities.
        return False if mine is not None and len(mine) > 1 and plain_number(truth) is not None else None
    if mine is not None and len(mine) == len(theirs) == 1:
        return _compare_units(mine[0], theirs[0])
    expected = _amount(theirs)
    given = _amount(mine) if mine is not None else None
    if expected is not None and given is not None:
        return _equal_sizes(expected, given)
    if len(theirs) == 1:
        return None if mine is None else False
    if expected is not None:
        # Hours for hours and minutes, dollars for dollars and cents.
        number, (largest, _) = plain_number(answer), unit(theirs[0].words)
        return number is not None and number * largest == expected[1]
    if mine is None:
        mine = tuple(Quantity(part.strip()) for part in re.split(r",(?!\d{3}(?!\d))", answer))
        if any(plain_number(item.number) is None for item in mine):
            return None
    return len(mine) == len(theirs) and _matched(list(mine), theirs)


def _compare_units(mine: Quantity, theirs: Quantity) -> bool | None:
    """Compare two quantities by their units; None if the numbers alone decide."""
    one, other = unit(mine.words), unit(theirs.words)
    if one is None or other is None:
        return None
    if one[1] != other[1]:
        return False
    if mine.size is None or theirs.size is None or (one == other and isinstance(theirs.size[1], float)):
        return None if one == other else False
    return _equal_sizes(mine.size, theirs.size)


def _equal_sizes(one: tuple[Dimension, Fraction | float], other: tuple[Dimension, Fraction | float]) -> bool:
    if one[0] != other[0] or (not isinstance(one[1], float) and not isinstance(other[1], float)):
        return one == other
    return abs(one[1] - other[1]) <= _TOLERANCE * abs(other[1])


def number_alone(latex: str) -> str:
    """Return the number of a single quantity, or the numbers of several separated by commas; other texts unchanged."""
    found = quantities(latex)
    return latex if found is None else ",".join(item.number for item in found)


def _quantity(number: str, words: str) -> Quantity:
    first, _, rest = words.partition(" ")
    factor = _MULTIPLIERS.get(first.casefold())
    plain = plain_number(number)
    if factor is None or plain is None:
        return Quantity(number, words)
    scaled = plain * factor
    text = str(scaled.numerator) if scaled.denominator == 1 else f"{scaled.numerator}/{scaled.denominator}"
    return Quantity(text, rest or first)


def _is_unit(words: str, gap: str) -> bool:
    """Return whether words after a number are a unit or the name of something, rather than algebra."""
    names = re.sub(_POWER + r"$", "", words).replace("\\cdot", " ")
    parts = [part for part in re.split(r"[^\w'’-]+", names) if part and not part.isdigit()]
    if any(part.casefold() in _NOT_UNITS for part in parts):
        return False
    known = simple_unit(parts[0]) is not None or unit(words) is not None
    if not gap:
        return known and (len(parts[0]) > 2 or parts[0] in _GLUED)
    named = len(parts) > 1 and _ABBREVIATION.fullmatch(parts[0]) and len(parts[1]) > 2 and parts[1].islower()
    return known or len(parts[0]) > 2 or parts[0] in ("sq", "cu") or bool(named)


def _amount(items: tuple[Quantity, ...]) -> tuple[Dimension, Fraction | float] | None:
    """Return the dimension and size of one amount: one known unit, or several of one dimension, each smaller."""
    sizes = [item.size for item in items]
    if None in sizes or len({dimension for dimension, _ in sizes}) != 1:
        return None
    factors = [unit(item.words)[0] for item in items]
    if any(later >= earlier for earlier, later in pairwise(factors)):
        return None
    return sizes[0][0], sum((size for _, size in sizes), Fraction(0))


def _matched(mine: list[Quantity], theirs: tuple[Quantity, ...]) -> bool:
    labels = [item.label for item in theirs]
    if len(set(labels)) > 1:  # different things are counted, so each number belongs to one of them
        if not any(item.words for item in mine):
            return all(map(_same, mine, theirs))
        if sorted(labels) == sorted(item.label for item in mine):
            given = {item.label: item for item in mine}
            return all(_same(given[item.label], item) for item in theirs)
    for item in theirs:
        same = next((other for other in mine if _same(other, item)), None)
        if same is None:
            return False
        mine.remove(same)
    return True


def _same(one: Quantity, other: Quantity) -> bool:
    if one.size is not None and other.size is not None:
        return _equal_sizes(one.size, other.size)
    return equal_numbers(one.number, other.number) is True
