r"""Units of measurement: `km/h`, `cm^2`, `square meters`, `miles per hour`, as a factor and powers of base units."""

import re
from fractions import Fraction
from functools import lru_cache

Dimension = tuple[tuple[str, int], ...]
"""Base units with their powers, sorted: an area is `(("m", 2),)`."""

# Base unit -> units of that kind, each with its names. A name of two or more letters may also have a plural s.
_BASES: dict[str, dict[str, str]] = {
    "m": {
        "1": "m meter metre",
        "1/1000": "mm millimeter millimetre",
        "1/100": "cm centimeter centimetre",
        "1/10": "dm decimeter decimetre",
        "1000": "km kilometer kilometre",
        "0.0254": "in inch inches",
        "0.3048": "ft foot feet",
        "0.9144": "yd yard",
        "1609.344": "mi mile",
    },
    "s": {"1/1000": "ms millisecond", "1": "s sec second", "60": "min minute", "3600": "h hr hour"}
    | {"86400": "day", "604800": "week"},
    "month": {"1": "month", "12": "year yr", "120": "decade", "1200": "century centuries"},
    "g": {"1/1000": "mg milligram", "1": "g gram", "1000": "kg kilogram kilo", "1000000": "t ton tonne"}
    | {"453.59237": "lb pound", "28.349523125": "oz ounce"},
    "dollar": {"1": "dollar buck USD", "1/100": "cent"},
    "euro": {"1": "euro EUR"},
    "rupee": {"1": "rupee INR"},
    "degree": {"1": "degree deg"},
    "radian": {"1": "radian rad"},
    **{symbol: {"1": symbol} for symbol in ("A", "K", "C", "F", "V", "mol", "rpm")},
}
_DERIVED: dict[str, tuple[str, Dimension]] = {
    "l L liter litre": ("1/1000", (("m", 3),)),
    "ml mL milliliter millilitre": ("1/1000000", (("m", 3),)),
    "cl centiliter": ("1/100000", (("m", 3),)),
    "gal gallon": ("0.003785411784", (("m", 3),)),
    "qt quart": ("0.000946352946", (("m", 3),)),
    "ha hectare": ("10000", (("m", 2),)),
    "acre": ("4046.8564224", (("m", 2),)),
    "mph": ("0.44704", (("m", 1), ("s", -1))),
    "kph": ("5/18", (("m", 1), ("s", -1))),
    "Hz hertz": ("1", (("s", -1),)),
    "kHz": ("1000", (("s", -1),)),
    "MHz": ("1000000", (("s", -1),)),
    "N newton": ("1000", (("g", 1), ("m", 1), ("s", -2))),
    "Pa pascal": ("1000", (("g", 1), ("m", -1), ("s", -2))),
    "J joule": ("1000", (("g", 1), ("m", 2), ("s", -2))),
    "kJ kilojoule": ("1000000", (("g", 1), ("m", 2), ("s", -2))),
    "kWh": ("3600000000", (("g", 1), ("m", 2), ("s", -2))),
    "W watt": ("1000", (("g", 1), ("m", 2), ("s", -3))),
    "kW kilowatt": ("1000000", (("g", 1), ("m", 2), ("s", -3))),
}
_UNITS: dict[str, tuple[Fraction, Dimension]] = {
    name: (Fraction(factor), ((base, 1),))
    for base, units in _BASES.items()
    for factor, names in units.items()
    for name in names.split()
} | {
    name: (Fraction(factor), dimension)
    for names, (factor, dimension) in _DERIVED.items()
    for name in names.split()
}  # fmt: skip
_PART = re.compile(
    r"(?P<link>/|\bper )? ?(?:\\cdot|[·*])? ?(?P<power_word>(?:square|sq\.?|cubic|cu\.?) )?"
    r"(?P<name>[a-zA-Z]+)\.?(?: ?\^ ?\{?(?P<power>-?\d)\}?|(?P<sign>[²³])|(?P<digit>\d))? ?"
)
_POWER_WORDS = {"sq": 2, "cu": 3}


@lru_cache(maxsize=4096)
def unit(words: str) -> tuple[Fraction, Dimension] | None:
    """Return how many base units one unit is, and which; None if any part of it is unknown."""
    factor, powers, position = Fraction(1), dict[str, int](), 0
    while position < len(words):
        match = _PART.match(words, position)
        known = simple_unit(match["name"]) if match else None
        if known is None:
            return None
        written = match["power"] or match["digit"] or {"²": "2", "³": "3"}.get(match["sign"], "1")
        power = int(written) * _POWER_WORDS.get((match["power_word"] or "")[:2], 1) * (-1 if match["link"] else 1)
        factor *= known[0] ** power
        for base, exponent in known[1]:
            powers[base] = powers.get(base, 0) + exponent * power
        position = match.end()
    dimension = tuple(sorted((base, power) for base, power in powers.items() if power))
    return (factor, dimension) if dimension else None


def simple_unit(name: str) -> tuple[Fraction, Dimension] | None:
    """Return a unit of one word, in the singular or the plural."""
    spellings = [name] if len(name) == 1 else [name, name.casefold(), name.casefold().removesuffix("s")]
    return next((_UNITS[spelling] for spelling in spellings if spelling in _UNITS), None)
