r"""Numbers with units and words: `8 books`, `30\text{ km}, 45\text{ km}`, `1\text{ h }15\text{ min}`, `5 million`.

math-verify drops everything after the first unit, so it reads `1\text{ h }15\text{ min}` as 1. Here a text is a
sequence of numbers, each with the words after it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from .exact import equal_numbers, plain_number
from .numeric import value
from .text import REMARK_WORDS, unwrap_text

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
    rf"(?P<number>[^a-zA-Z]*(?:\\(?:frac|sqrt|pi|cdot|times)(?![a-zA-Z])[^a-zA-Z]*)*) (?P<words>{_WORDS})"
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
_DIMENSIONS = {
    "length": {"mm": "1/1000", "cm": "1/100", "dm": "1/10", "m": "1", "km": "1000"}
    | dict.fromkeys(("millimeter", "millimetre"), "1/1000")
    | dict.fromkeys(("centimeter", "centimetre"), "1/100")
    | dict.fromkeys(("meter", "metre"), "1")
    | dict.fromkeys(("kilometer", "kilometre"), "1000")
    | dict.fromkeys(("in", "inch", "inches"), "0.0254")
    | dict.fromkeys(("ft", "foot", "feet"), "0.3048")
    | dict.fromkeys(("yd", "yard"), "0.9144")
    | dict.fromkeys(("mi", "mile"), "1609.344"),
    "time": dict.fromkeys(("s", "sec", "second"), "1")
    | dict.fromkeys(("min", "minute"), "60")
    | dict.fromkeys(("h", "hr", "hour"), "3600")
    | {"ms": "1/1000", "day": "86400", "week": "604800"},
    "mass": {"mg": "1/1000", "g": "1", "gram": "1", "kg": "1000", "kilogram": "1000", "kilo": "1000"}
    | dict.fromkeys(("lb", "lbs", "pound"), "453.59237")
    | dict.fromkeys(("oz", "ounce"), "28.349523125"),
    "volume": dict.fromkeys(("l", "L", "liter", "litre"), "1") | dict.fromkeys(("ml", "mL"), "1/1000"),
    "money": {"dollar": "1", "cent": "1/100"},
    "angle": dict.fromkeys(("degree", "deg"), "1"),
}
_UNITS = {
    name: (dimension, Fraction(factor)) for dimension, units in _DIMENSIONS.items() for name, factor in units.items()
}
# Symbols of physics that stand for themselves: known as units, never converted.
_SYMBOLS = frozenset(
    (
        *("N", "J", "W", "V", "A", "K", "C", "F", "t", "ha", "Pa", "Hz", "kHz", "MHz", "kJ", "kW", "kV", "kWh"),
        *("mol", "mph", "kph", "rpm", "km/h", "m/s", "cm/s"),
    )
)


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
    def size(self) -> tuple[str, Fraction] | None:
        """The dimension and the amount in its base unit; None unless the unit is known and the number plain."""
        unit, number = _known(self.words), plain_number(self.number)
        return None if unit is None or number is None else (unit[0], number * unit[1])


def quantities(latex: str) -> tuple[Quantity, ...] | None:
    """Read a text as numbers with words after them, separated by commas, `and`, `or`, or only by their units.

    Args:
        latex: tidied by `text.tidy`.

    Returns:
        The quantities in the order of the text; None if the text is anything else, or if no number has words.
    """
    if len(latex) > _LONGEST or not any(map(str.isalpha, latex)):
        return None
    text = " ".join(unwrap_text(latex, " ").split())
    if (match := _CLOSED_FORM.fullmatch(text)) and not re.fullmatch(_NUMBER, match["number"].strip()):
        number = match["number"].strip()
        return (
            (Quantity(number, match["words"]),) if value(number) is not None and _is_unit(match["words"], " ") else None
        )
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

    Units of one dimension are converted, so 75 minutes are 1 hour and 15 minutes. Several quantities match in any
    order. An answer may leave a unit out if the ground truth lists independent quantities (`30 km, 45 km`). Inside one
    amount (`1 h 15 min`) it may only give the whole amount in the first unit (1.25). Words that are not known as units
    are ignored between quantities of one kind.

    Returns:
        The verdict; None if neither text is several quantities and their units do not tell them apart.
    """
    mine, theirs = quantities(answer), quantities(truth)
    if theirs is None:
        # A plain ground truth is never answered by two quantities.
        return False if mine is not None and len(mine) > 1 and plain_number(truth) is not None else None
    expected = _amount(theirs)
    given = _amount(mine) if mine is not None else None
    if expected is not None and given is not None:
        return expected == given if expected[0] == given[0] else False
    if len(theirs) == 1:
        return None if mine is None or len(mine) == 1 else False
    if expected is not None:
        # Hours for hours and minutes, dollars for dollars and cents.
        number, largest = plain_number(answer), _known(theirs[0].words)[1]
        return number is not None and number * largest == expected[1]
    if mine is None:
        mine = tuple(Quantity(part.strip()) for part in re.split(r",(?!\d{3}(?!\d))", answer))
        if any(plain_number(item.number) is None for item in mine):
            return None
    return len(mine) == len(theirs) and _matched(list(mine), theirs)


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
    parts = [part for part in re.split(r"[^\w'’-]+", re.sub(_POWER + r"$", "", words)) if part and not part.isdigit()]
    if any(part.casefold() in _NOT_UNITS for part in parts):
        return False
    first = parts[0]
    known = _known(first) is not None or first in _SYMBOLS or words in _SYMBOLS
    if not gap:
        return known and len(first) > 1
    return known or len(first) > 2


def _known(words: str) -> tuple[str, Fraction] | None:
    name = words.rstrip(".")
    for spelling in (name, name.casefold(), name.casefold().removesuffix("s")):
        if spelling in _UNITS:
            return _UNITS[spelling]
    return None


def _amount(items: tuple[Quantity, ...]) -> tuple[str, Fraction] | None:
    """Return the dimension and size of one amount: one known unit, or several of one dimension, each smaller."""
    sizes = [item.size for item in items]
    if None in sizes or len({dimension for dimension, _ in sizes}) != 1:
        return None
    factors = [_known(item.words)[1] for item in items]
    if any(later >= earlier for earlier, later in pairwise(factors)):
        return None
    return sizes[0][0], sum((size for _, size in sizes), Fraction(0))


def _matched(mine: list[Quantity], theirs: Iterable[Quantity]) -> bool:
    for item in theirs:
        same = next((other for other in mine if _same(other, item)), None)
        if same is None:
            return False
        mine.remove(same)
    return True


def _same(one: Quantity, other: Quantity) -> bool:
    if one.size is not None and other.size is not None:
        return one.size == other.size
    return equal_numbers(one.number, other.number) is True
