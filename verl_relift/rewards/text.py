"""Reading LaTeX as text: removing what carries no meaning, and comparing words."""

from __future__ import annotations

import re

_NOTHING = re.compile(r"\\!|\\?\$|\\displaystyle(?![a-zA-Z])")
_SPACE = re.compile(r"(?<!\\)\\[,;: ]|~|\s+")
_SIZE = re.compile(r"\\(?:left|right)(?![a-zA-Z])\.?")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
# Not beside letters and digits, where a space separates; nor beside a comma: `1, 000` is two numbers, `1,000` is one.
_IDLE_SPACE = re.compile(r"(?<![0-9a-zA-Z\\,]) +| +(?![0-9a-zA-Z,])")
_SPACED_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?", re.ASCII)

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{([^{}]*)\}")
# Words behind a value, where a unit stands.
_BEHIND = re.compile(
    r"(?:(?<=[0-9a-zA-Z)}\]%])|(?<=[0-9a-zA-Z)}\]%] ))"
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{\s*(?!(?:or|and)\s*\})([^{}]*)\}"
)
# A unit's power is one digit (cm2); any other number is a second answer, and so is what these words announce.
_REMARK = re.compile(
    r"(?<![a-zA-Z])\d|\d\d|(?<![a-zA-Z])(?:or|but|maybe|perhaps|possibly|either|not|otherwise|unless)(?![a-zA-Z])",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z ,'-]*")
_UNIT_AFTER = re.compile(r"\s*\\(?:text|textrm|mathrm|mbox)\{[^{}]*\}(?:\^\{?\d\}?)?$")


def tidy(latex: str) -> str:
    """One spelling for what reads the same: spacing commands, dollar signs, bracket sizes, a closing full stop."""
    latex = _NOTHING.sub("", latex).replace("{,}", ",").replace("−", "-")
    latex = _FRACTION.sub(r"\\frac", _SIZE.sub("", _SPACE.sub(" ", latex)))
    latex = _IDLE_SPACE.sub("", latex).strip()
    if latex.endswith("."):
        latex = latex[:-1].rstrip()
    return latex.replace(" ", "") if _SPACED_THOUSANDS.fullmatch(latex) else latex


def unwrap_text(latex: str) -> str:
    """Replace `\\text{...}` and its like by their content."""
    return _TEXT_COMMAND.sub(r"\1", latex)


def without_unit(latex: str) -> str:
    """Drop a unit written as closing `\\text{...}`, with its power."""
    return _UNIT_AFTER.sub("", latex)


def remarks(latex: str) -> bool:
    """Whether words behind a value are more than a unit: `13\\text{ or 14}`, of which math-verify reads the 13."""
    return any(_REMARK.search(words) for words in _BEHIND.findall(latex))


def same_words(one: str, other: str) -> bool:
    """Whether both are words only and the same ones, whatever their case: `\\text{No solution}`, `no solution`."""
    one, other = unwrap_text(one).strip(), unwrap_text(other).strip()
    return one.casefold() == other.casefold() and _WORDS.fullmatch(one) is not None
