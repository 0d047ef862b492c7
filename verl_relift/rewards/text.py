"""LaTeX as text: removing what carries no meaning, and comparing words."""

import re

from .numerals import spell_numerals
from .separators import with_commas
from .signs import in_latex

_PLAIN = re.compile(r"-?\d{1,18}", re.ASCII)
# A comma whose space is taken back separates groups of digits.
_GROUP_COMMA = re.compile(r"(?:\{,\}|,\\!) *(?:\\!)?")
_CURRENCY = (
    r"(?:(?:(?:US|CA|AU|NZ|HK|C|A)(?=\\?\$\d))?\\?\$|[€£¥₹]|\\(?:euro|pounds|yen)(?![a-zA-Z])"
    r"|\b(?:Rs\.?|USD|EUR|GBP|INR|CAD|AUD)(?= ?\}? ?\\?\$?\d))"
)
_DOLLARS = re.compile(r"\$?\\\$ ?([\d,.]*\d)\$?|\$ ?([\d,.]*\d)")
_NOTHING = re.compile(rf"\\!|{_CURRENCY}|\\text\{{ *{_CURRENCY} *\}}|\\displaystyle(?![a-zA-Z])|(?<!\\)\\[\[\]()]")
_SPACE = re.compile(r"(?<!\\)\\[,;: ]|~|\s+")
_SIZE = re.compile(r"\\(?:left|right)(?![a-zA-Z])\.?")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_FIRST_DIGIT = re.compile(r"\\frac ?(\d)", re.ASCII)  # `\frac12` and `\frac1{2}` take single digits
_SECOND_DIGIT = re.compile(r"(\\frac\{[^{}]*\}) ?([0-9a-zA-Z])")
_ROOT = re.compile(r"\\sqrt ?(\d)", re.ASCII)
_MODULUS = re.compile(r"\(? ?\\(?:[bp]?mod|text\{ *mod *\}) ?\{?(\d+|[a-z])\}? ?\)?", re.ASCII)
_PRIME, _TRANSPOSE = re.compile(r"\^ ?\{?\\prime\}?"), re.compile(r"\^ ?(?:\{ ?(?:T|\\top) ?\}|\\top(?![a-zA-Z]))")
_NAMED_FUNCTION = re.compile(r"\\operatorname\*?\{((?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|ln|log|exp)\}")
# Single letters that are no units: vectors in bold, and the constants e, i and the d of a differential set upright.
_UNIT_VECTOR = re.compile(r"\\(?:hat|vec)\{(?:([ijk])|\\([ij])math)\}")
_LETTER = re.compile(r"\\(?:(?:mathbf|boldsymbol|bm)\{([a-zA-Z])\}|mathrm\{([eid])\})")
_SPELLINGS = {
    **dict.fromkeys(("\\langle", "\\lparen"), "("),
    **dict.fromkeys(("\\rangle", "\\rparen"), ")"),
    **dict.fromkeys(("\\varnothing", "\\{\\}"), "\\emptyset"),
    **dict.fromkeys(("\\leq", "\\leqslant"), "\\le"),
    **dict.fromkeys(("\\geq", "\\geqslant"), "\\ge"),
    **{"\\neq": "\\ne", "\\lt": "<", "\\gt": ">", "\\degree": "^{\\circ}", "\\colon": ":"},
    **dict.fromkeys(("\\doteq", "\\simeq", "\\thickapprox", "\\approxeq"), "\\approx"),
}
_COMMANDS = re.compile(
    "|".join(re.escape(name) + ("(?![a-zA-Z])" if name[-1].isalpha() else "") for name in _SPELLINGS)
)
# What stands around an answer and is no part of it.
_BARE_ROOT = re.compile(r"(?<![a-zA-Z\\])sqrt ?\(([^()]*)\)")
_BARE_NAME = re.compile(r"(?<![a-zA-Z\\])(pi|sqrt|sin|cos|tan|arcsin|arccos|arctan|ln|log)(?![a-zA-Z])")
_AMERICAN = re.compile(r"\bU\.S\.(?:A\.)?(?= )")
_COLOR = re.compile(r"\\(?:text)?color\{[a-zA-Z]+\}")
_EMPHASIS = re.compile(r"(\*\*|__|`)(?P<inner>[^*_`]+)\1")
_WRAPPED = re.compile(r"\\(?:underline|text|textbf|textit|textrm|mathbf|mathrm|mbox)\{(?P<inner>[^{}]*\d[^{}]*)\}\.?")
_LEAD = (
    r"(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:(?:final|correct) )?(?:answer|ans\.?|result)(?: is:?|:| ?=)"
    r"|(?:exactly|a total of)(?= ?\}? ?\\?\$?\d)"
)
_LEAD_IN = re.compile(rf"\\text(?:bf)?\{{ *(?:{_LEAD}) *\}} *|(?:{_LEAD}) *|= *(?=\S)", re.IGNORECASE)
_ABOUT = re.compile(
    r"(?:\\text\{ *)?(?:about|approximately|approx\.?|roughly|around) *\}? *(?=\\?\$?\d)", re.IGNORECASE
)
_CLOSING = re.compile(r"(?: *(?:(?<!\\)[,;:]|(?<!\.)\.|\\\\))+ *$")
_CUT_OFF = re.compile(r"=? ?(-?\d*\.\d+) ?(?:\.\.\.|\\[lc]?dots)$")
_SETS = {
    **dict.fromkeys(
        ("all real numbers", "all reals", "the real numbers", "the set of all real numbers"), "\\mathbb{R}"
    ),
    **dict.fromkeys(("empty set", "the empty set"), "\\emptyset"),
    **{"infinity": "\\infty", "negative infinity": "-\\infty"},
}
# The space after a command ends its name, which anything but a letter does too.
_AFTER_COMMAND = re.compile(r"(\\[a-zA-Z]+) +(?![a-zA-Z])")
# A space between letters or digits separates them; one after a comma does too: `1, 000` is two numbers, `1,000` is one.
_IDLE_SPACE = re.compile(r"(?<![0-9a-zA-Z\\,]) +| +(?![0-9a-zA-Z,])")
# A space after a comma is kept only between groups of digits.
_SEPARATING = re.compile(r"(?<![0-9a-zA-Z\\,]) +| +(?![0-9a-zA-Z])|(?<=,) +(?!\d{3}(?!\d))|(?<=\d) +(?=[a-zA-Z])")
_SPACED_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:([ _'’])\d{3})(?:\1\d{3})*(?:\.\d+)?", re.ASCII)

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{((?:[^{}]|\{[^{}]*\})*)\}")
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
# Labels of statements: `(ii)`, `(i) and (iii)`, `(a), (c)`. The brackets of `f(x)` and `(a,b)` are other ones.
_LABEL = r"\((?:[ivx]+|[a-z])\)"
_LABELS = re.compile(rf"{_LABEL}(?: ?(?:[,;&]|and|or|only)? ?{_LABEL})*(?: ?only)?", re.IGNORECASE)
_ROMAN = re.compile(r"\((?:i{2,3}|i[vx]|vi{1,3}|xi{1,3})\)", re.IGNORECASE)
_ONE_WORD = re.compile(r"\(([^\W\d_]+)\)")
_UNIT_AFTER = re.compile(r"\s*\\(?:text|textrm|mathrm|mbox)\{[^{}]*\}(?:\^\{?\d\}?)?$")


def tidy(latex: str) -> str:
    """Return one spelling for texts that read the same.

    Spacing commands, math delimiters, currency signs, bracket sizes and a closing period are removed. Upright and bold
    letters are plain ones, and numerals are spelled as `numerals.spell_numerals` does.
    """
    if _PLAIN.fullmatch(latex):
        return latex
    latex = latex.strip()
    if not latex.isascii():
        latex = in_latex(latex)
    if "sqrt" in latex or _BARE_NAME.search(latex):
        latex = _BARE_NAME.sub(r"\\\1", _BARE_ROOT.sub(r"\\sqrt{\1}", latex))
    if "U.S." in latex:
        latex = _AMERICAN.sub("US", latex)
    latex = _unwrapped(_NOTHING.sub("", _GROUP_COMMA.sub(",", latex)))
    if "\\" in latex:
        latex = _one_spelling(latex)
    latex = _IDLE_SPACE.sub("", _SPACE.sub(" ", latex)).strip()
    latex = _CUT_OFF.sub(r"\\approx\1", latex) if latex.endswith(("..", "dots")) else _CLOSING.sub("", latex)
    if match := _SPACED_THOUSANDS.fullmatch(latex):
        return latex.replace(match[1], "")
    if ";" in latex or latex.endswith("[") or "]" in latex:
        latex = with_commas(latex)
    return spell_numerals(latex)


def _unwrapped(latex: str) -> str:
    """Return an answer without emphasis, colors and the words that introduce it."""
    if "color" in latex:
        latex = _COLOR.sub("", latex)
    latex = latex.strip()
    for around in (_EMPHASIS, _WRAPPED):
        if match := around.fullmatch(latex):
            latex = match["inner"].strip()
    while match := _LEAD_IN.match(latex):
        latex = latex[match.end() :]
    if match := _ABOUT.match(latex):
        latex = "\\approx " + latex[match.end() :]
    return _SETS.get(unwrap_text(latex).strip(" .").casefold(), latex)


def _one_spelling(latex: str) -> str:
    latex = _COMMANDS.sub(lambda match: _SPELLINGS[match[0]], _FRACTION.sub(r"\\frac", _SIZE.sub("", latex)))
    latex = _LETTER.sub(lambda match: match[1] or match[2], _ROOT.sub(r"\\sqrt{\1}", latex))
    latex = _TRANSPOSE.sub("^T", _PRIME.sub("'", latex))
    latex = _UNIT_VECTOR.sub(lambda match: match[1] or match[2], latex)
    latex = _SECOND_DIGIT.sub(r"\1{\2}", _FIRST_DIGIT.sub(r"\\frac{\1}", latex))
    return _AFTER_COMMAND.sub(r"\1", _NAMED_FUNCTION.sub(r"\\\1", _MODULUS.sub(r"\\pmod{\1}", latex)))


def dollars(latex: str) -> str:
    r"""Return an amount such as `\$1.50` in words, `1.50 dollars`, so that it differs from cents; others unchanged."""
    match = _DOLLARS.fullmatch(latex.strip())
    return latex if match is None else f"{match[1] or match[2]} dollars"


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
    r"""Return whether both texts are only words and the same words: `\text{No solution}` and `no solution`.

    So are labels in brackets: `\text{(ii)}`, `(ii)` and `ii`.
    """
    one, other = (unwrap_text(text).strip(" .").casefold() for text in (one, other))
    if one != other and ("(" in one or "(" in other):
        one, other = (_without_brackets(text) for text in (one, other))
    return one == other and (_WORDS.fullmatch(one) or _LABELS.fullmatch(one)) is not None


def is_roman(latex: str) -> bool:
    """Return whether a text is a Roman numeral in brackets, a label whose letters are no product: `(iv)`."""
    return _ROMAN.fullmatch(unwrap_text(latex).strip()) is not None


def _without_brackets(label: str) -> str:
    """Return a word in brackets without them, and several labels without spaces."""
    match = _ONE_WORD.fullmatch(label)
    return match[1] if match else label.replace(" ", "")
