"""LaTeX as text: removing what carries no meaning, and comparing words."""

import re
import unicodedata

from .numerals import spell_numerals

_PLAIN = re.compile(r"-?\d{1,18}", re.ASCII)
# A comma whose space is taken back separates groups of digits.
_GROUP_COMMA = re.compile(r"(?:\{,\}|,\\!) *(?:\\!)?")
_CURRENCY = r"(?:(?:(?:US|CA|AU|NZ|HK|C|A)(?=\\?\$\d))?\\?\$|[€£¥₹]|\\(?:euro|pounds|yen)(?![a-zA-Z]))"
_NOTHING = re.compile(rf"\\!|{_CURRENCY}|\\text\{{ *{_CURRENCY} *\}}|\\displaystyle(?![a-zA-Z])|(?<!\\)\\[\[\]()]")
_SPACE = re.compile(r"(?<!\\)\\[,;: ]|~|\s+")
_SIZE = re.compile(r"\\(?:left|right)(?![a-zA-Z])\.?")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_FIRST_DIGIT = re.compile(r"\\frac ?(\d)", re.ASCII)  # `\frac12` and `\frac1{2}` take single digits
_SECOND_DIGIT = re.compile(r"(\\frac\{[^{}]*\}) ?([0-9a-zA-Z])")
_ROOT = re.compile(r"\\sqrt ?(\d)", re.ASCII)
# Single letters that are no units: vectors in bold, and the constants e, i and the d of a differential set upright.
_LETTER = re.compile(r"\\(?:(?:mathbf|boldsymbol|bm)\{([a-zA-Z])\}|mathrm\{([eid])\})")
_SPELLINGS = {
    **dict.fromkeys(("\\langle", "\\lparen"), "("),
    **dict.fromkeys(("\\rangle", "\\rparen"), ")"),
    **dict.fromkeys(("\\varnothing", "\\{\\}"), "\\emptyset"),
    **dict.fromkeys(("\\doteq", "\\simeq", "\\thickapprox", "\\approxeq"), "\\approx"),
}
_COMMANDS = re.compile(
    "|".join(re.escape(name) + ("(?![a-zA-Z])" if name[-1].isalpha() else "") for name in _SPELLINGS)
)
_SIGNS = str.maketrans(
    {
        **{"−": "-", "°": "^{\\circ}", "×": "\\times ", "·": "\\cdot ", "²": "^{2}", "³": "^{3}"},
        **{"≈": "\\approx ", "≤": "\\le ", "≥": "\\ge ", "∅": "\\emptyset "},
        **{"½": "\\frac{1}{2}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}"},
    }
)
# A space between letters or digits separates them; one after a comma does too: `1, 000` is two numbers, `1,000` is one.
_IDLE_SPACE = re.compile(r"(?<![0-9a-zA-Z\\,]) +| +(?![0-9a-zA-Z,])")
# A space after a comma is kept only between groups of digits.
_SEPARATING = re.compile(r"(?<![0-9a-zA-Z\\,]) +| +(?![0-9a-zA-Z])|(?<=,) +(?!\d{3}(?!\d))")
_SPACED_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?", re.ASCII)

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{([^{}]*)\}")
# Words after a value, where a unit stands.
_BEHIND = re.compile(
    r"(?:(?<=[0-9a-zA-Z)}\]%])|(?<=[0-9a-zA-Z)}\]%] ))"
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{\s*(?!(?:or|and)\s*\})([^{}]*)\}"
)
REMARK_WORDS = frozenset({"or", "but", "maybe", "perhaps", "possibly", "either", "not", "otherwise", "unless"})
# A unit's power is one digit (cm2, m^2). Any other number, or one of these words, announces a second answer.
_REMARK = re.compile(
    rf"(?<![a-zA-Z^])\d|\d\d|(?<![a-zA-Z])(?:{'|'.join(sorted(REMARK_WORDS))})(?![a-zA-Z])", re.IGNORECASE
)
_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|[ ,'’-])*")
_UNIT_AFTER = re.compile(r"\s*\\(?:text|textrm|mathrm|mbox)\{[^{}]*\}(?:\^\{?\d\}?)?$")


def tidy(latex: str) -> str:
    """Return one spelling for texts that read the same.

    Spacing commands, math delimiters, currency signs, bracket sizes and a closing period are removed. Upright and bold
    letters are plain ones, and numerals are spelled as `numerals.spell_numerals` does.
    """
    if _PLAIN.fullmatch(latex):
        return latex
    if not latex.isascii():
        latex = unicodedata.normalize("NFC", latex).translate(_SIGNS)
    latex = _NOTHING.sub("", _GROUP_COMMA.sub(",", latex))
    if "\\" in latex:
        latex = _COMMANDS.sub(lambda match: _SPELLINGS[match[0]], _FRACTION.sub(r"\\frac", _SIZE.sub("", latex)))
        latex = _LETTER.sub(lambda match: match[1] or match[2], _ROOT.sub(r"\\sqrt{\1}", latex))
        latex = _SECOND_DIGIT.sub(r"\1{\2}", _FIRST_DIGIT.sub(r"\\frac{\1}", latex))
    latex = _IDLE_SPACE.sub("", _SPACE.sub(" ", latex)).strip()
    if latex.endswith("."):
        latex = latex[:-1].rstrip()
    return latex.replace(" ", "") if _SPACED_THOUSANDS.fullmatch(latex) else spell_numerals(latex)


def unwrap_text(latex: str, around: str = "") -> str:
    r"""Replace `\text{...}` and similar commands by their content, with `around` on both sides of it."""
    return _TEXT_COMMAND.sub(rf"{around}\1{around}", latex)


def squeezed(latex: str) -> str:
    """Return the text without the spaces that separate no words, letters or digits."""
    return _SEPARATING.sub("", latex)


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
