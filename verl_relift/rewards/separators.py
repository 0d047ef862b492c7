"""Brackets as they are written in Europe: `[0; 1)`, `(0,5; 1)` and `]0,1[` are `[0,1)`, `(0.5,1)` and `(0,1)`."""

import re

# A bracket opens or closes outwards only at the ends of an interval: those of `\sqrt[3]{2},\sqrt[3]{5}` do neither.
_OPEN = r"([\[(]|(?:^|(?<=\\cup)|(?<=\\cap)|(?<=\\in)|(?<=[= ]))\])"
_CLOSE = r"([\])]|\[(?=$| ?\\(?:cup|cap|setminus)))"
_INSIDE = r"(?:\\sqrt\[\d{1,3}\]|[^()\[\];])*"
_GROUP = re.compile(rf"{_OPEN}({_INSIDE}(?:;{_INSIDE})+){_CLOSE}")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"-?\d{1,3},\d{3}", re.ASCII)
_INTERVAL = re.compile(rf"{_OPEN}([^()\[\],;]+),([^()\[\],;]+){_CLOSE}")


def with_commas(latex: str) -> str:
    """Write semicolons inside brackets as commas, and brackets that open outwards as round ones.

    Where a semicolon separates, a comma in a number is a decimal point. `[1;2,2]` stays, because it may be a continued
    fraction, and so does `(1,000;2)`, which has two readings.
    """
    if ";" in latex:
        latex = _GROUP.sub(_separated, latex)
    return _INTERVAL.sub(_closed, latex)


def _separated(match: re.Match[str]) -> str:
    opening, inner, closing = match.groups()
    items = [item.strip() for item in inner.split(";")]
    if not all(items):
        return match[0]
    if "," in inner:
        decimals = [item for item in items if "," in item]
        plain = all(_DECIMAL_COMMA.fullmatch(item) and not _THOUSANDS.fullmatch(item) for item in decimals)
        if not plain or (opening + closing == "[]" and "," not in items[0]):
            return match[0]
        items = [item.replace(",", ".") for item in items]
    return opening + ",".join(items) + closing


def _closed(match: re.Match[str]) -> str:
    opening, low, high, closing = match.groups()
    if opening != "]" and closing != "[":
        return match[0]
    return f"{'(' if opening == ']' else opening}{low},{high}{')' if closing == '[' else closing}"
