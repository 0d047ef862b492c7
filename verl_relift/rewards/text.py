"""LaTeX as text: removing what carries no meaning, and comparing words."""

import re

_NOTHING = re.compile(r"\\!|\\?\$|\\displaystyle(?![a-zA-Z])")
_SPACE = re.compile(r"(?<!\\)\\[,;: ]|~|\s+")
_SIZE = re.compile(r"\\(?:left|right)(?![a-zA-Z])\.?")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
# A space between letters or digits separates them; one after a comma does too: `1, 000` is two numbers, `1,000` is one.
_IDLE_SPACE = re.compile(r"(?<![0-9a-zA-Z\\,]) +| +(?![0-9a-zA-Z,])")
_SPACED_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?", re.ASCII)

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{([^{}]*)\}")
# Words after a value, where a unit stands.
_BEHIND = re.compile(
    r"(?:(?<=[0-9a-zA-Z)}\]%])|(?<=[0-9a-zA-Z)}\]%] ))"
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{\s*(?!(?:or|and)\s*\})([^{}]*)\}"
)
# A unit's power is one digit (cm2). Any other number, or one of these words, announces a second answer.
_REMARK = re.compile(
    r"(?<![a-zA-Z])\d|\d\d|(?<![a-zA-Z])(?:or|but|maybe|perhaps|possibly|either|not|otherwise|unless)(?![a-zA-Z])",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z ,'-]*")
_UNIT_AFTER = re.compile(r"\s*\\(?:text|textrm|mathrm|mbox)\{[^{}]*\}(?:\^\{?\d\}?)?$")


def tidy(latex: str) -> str:
    """Return one spelling for texts that read the same.

    Spacing commands, dollar signs, bracket sizes and a closing period are removed.
    """
    latex = _NOTHING.sub("", latex).replace("{,}", ",").replace("−", "-")
    latex = _FRACTION.sub(r"\\frac", _SIZE.sub("", _SPACE.sub(" ", latex)))
    latex = _IDLE_SPACE.sub("", latex).strip()
    if latex.endswith("."):
        latex = latex[:-1].rstrip()
    return latex.replace(" ", "") if _SPACED_THOUSANDS.fullmatch(latex) else latex


def unwrap_text(latex: str) -> str:
    r"""Replace `\text{...}` and similar commands by their content."""
    return _TEXT_COMMAND.sub(r"\1", latex)


def without_unit(latex: str) -> str:
    r"""Drop a unit that is written as a closing `\text{...}`, with its power."""
    return _UNIT_AFTER.sub("", latex)


def remarks(latex: str) -> bool:
    r"""Return whether the words after a value are more than a unit.

    math-verify reads `13\text{ or 14}` as 13; here the words count, so the answer is wrong.
    """
    return any(_REMARK.search(words) for words in _BEHIND.findall(latex))


def same_words(one: str, other: str) -> bool:
    r"""Return whether both texts are only words and the same words: `\text{No solution}` and `no solution`."""
    one, other = unwrap_text(one).strip(), unwrap_text(other).strip()
    return one.casefold() == other.casefold() and _WORDS.fullmatch(one) is not None
