r"""Inequalities in one variable as intervals: `0\le x<1` is `[0,1)`, and `x<2\text{ or }x>3` is a union."""

import re

_OR = re.compile(r" ?(?:\\(?:text|mathrm|mbox)\{ *or *\}|\\lor(?![a-zA-Z])|\bor\b) ?")
_AND = re.compile(r" ?(?:\\(?:text|mathrm|mbox)\{ *and *\}|\\land(?![a-zA-Z])|\band\b) ?")
_SIGN = re.compile(r" ?(<|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])) ?")
_BUILDER = re.compile(r"\\\{ ?[a-zA-Z](?:\\in\\mathbb\{R\})? ?(?::|\||\\mid|\\vert) ?(?P<inner>.*)\\\}")
_NAME = re.compile(r"[a-zA-Z]|\\(?:alpha|beta|theta|lambda|mu|phi|varphi|omega)")
_INTERVAL = re.compile(r"[(\[].*,.*[)\]]|.*\\cup.*", re.DOTALL)
_VALUES = re.compile(r"[^a-zA-Z()\[\]<>]*")
_ABOVE = {"<": "(", "\\le": "["}
_BELOW = {"<": ")", "\\le": "]"}


def as_intervals(answer: str, truth: str) -> tuple[str, str] | None:
    """Write inequalities as intervals where one text is an inequality and the other an interval or an inequality.

    Returns:
        Both texts, rewritten where that applies; None if the answer is wrong because it only lists numbers.
    """
    if not (_SIGN.search(answer) or _SIGN.search(truth)):
        return answer, truth
    mine, theirs = _union(answer), _union(truth)
    if theirs is not None and mine is None and _VALUES.fullmatch(answer):
        return None
    if mine is not None and theirs is not None:
        return (mine[1], theirs[1]) if mine[0] == theirs[0] else (answer, truth)
    if mine is not None and _INTERVAL.fullmatch(truth):
        return mine[1], truth
    if theirs is not None and _INTERVAL.fullmatch(answer):
        return answer, theirs[1]
    return answer, truth


def _union(latex: str) -> tuple[str, str] | None:
    r"""Return the variable of an inequality and its solutions, joined by `\cup`; None for any other text."""
    if match := _BUILDER.fullmatch(latex):
        latex = match["inner"].strip()
    pieces = [_piece(piece.strip()) for piece in _OR.split(latex)]
    if None in pieces or len({name for name, _, _ in pieces}) != 1:
        return None
    return pieces[0][0], r"\cup".join(low + "," + high for _, low, high in pieces)


def _piece(latex: str) -> tuple[str, str, str] | None:
    """Return variable, lower and upper end of one inequality, or of two joined by `and`."""
    bounds = [_chain(part.strip()) for part in _AND.split(latex)]
    if None in bounds or len({name for name, _, _ in bounds}) != 1 or len(bounds) > 2:
        return None
    lows, highs = ([bound[end] for bound in bounds if bound[end]] for end in (1, 2))
    if len(lows) > 1 or len(highs) > 1:
        return None
    return bounds[0][0], *(lows or [r"(-\infty"]), *(highs or [r"\infty)"])


def _chain(latex: str) -> tuple[str, str, str] | None:
    r"""Return variable, lower and upper end (empty where there is none) of `x<2`, `2>x` or `0\le x<1`."""
    parts = _SIGN.split(latex)
    sides, signs = parts[::2], parts[1::2]
    if not signs or len(signs) > 2:
        return None
    if all(sign in (">", "\\ge") for sign in signs):
        sides, signs = sides[::-1], [{">": "<", "\\ge": "\\le"}[sign] for sign in signs[::-1]]
    if not all(sign in _ABOVE for sign in signs) or "," in latex or "=" in latex or not all(sides):
        return None
    if len(signs) == 2:
        low, name, high = sides
        ends = _ABOVE[signs[0]] + low, high + _BELOW[signs[1]]
    elif _NAME.fullmatch(sides[0]):
        name, ends = sides[0], ("", sides[1] + _BELOW[signs[0]])
    else:
        name, ends = sides[1], (_ABOVE[signs[0]] + sides[0], "")
    return (name, *ends) if _NAME.fullmatch(name) else None
