"""Signs of Unicode in LaTeX: `−5`, `2√3`, `x¹⁰`, `(-∞,2)∪(3,∞)`, full-width digits, Greek letters."""

import re
import unicodedata

_DIGITS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n0123456789+-n", strict=True))
_RAISED, _LOWERED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙ]+")
# Full-width forms, and letters and digits in the fonts of mathematics.
_STYLED = re.compile("[\uff01-\uff5e\U0001d400-\U0001d7ff]")
_GREEK = re.compile("[Α-ω]")
_ROOT = re.compile(r"√ ?(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[a-zA-Z]))")
_FRACTIONS = "½1/2 ⅓1/3 ⅔2/3 ¼1/4 ¾3/4 ⅕1/5 ⅖2/5 ⅗3/5 ⅘4/5 ⅙1/6 ⅚5/6 ⅛1/8 ⅜3/8 ⅝5/8 ⅞7/8"
_VULGAR = {text[0]: rf"\frac{{{text[1]}}}{{{text[3]}}}" for text in _FRACTIONS.split()}
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−–—﹣‐‑", "-"),
        **dict.fromkeys("°º˚", "^{\\circ}"),
        **dict.fromkeys("·⋅∙•", "\\cdot "),
        **dict.fromkeys("÷⁄∕", "/"),
        **dict.fromkeys("≤⩽≦", "\\le "),
        **dict.fromkeys("≥⩾≧", "\\ge "),
        **{"×": "\\times ", "≈": "\\approx ", "≠": "\\ne ", "±": "\\pm ", "∓": "\\mp ", "∞": "\\infty "},
        **{"∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "∖": "\\setminus ", "∠": "\\angle "},
        **{f"{double}": f"\\mathbb{{{letter}}}" for double, letter in zip("ℝℤℚℕℂ", "RZQNC", strict=True)},
        **{"√": "\\sqrt ", "′": "'", "″": "''", "…": "\\ldots ", "≡": "\\equiv ", "¢": " cents", "△": "\\triangle "},
        **_VULGAR,
    }
)


def in_latex(text: str) -> str:
    """Return a text with its signs as LaTeX commands. What has no command stays as it is."""
    text = unicodedata.normalize("NFC", text)
    text = _STYLED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = _RAISED.sub(lambda match: "^{" + "".join(map(_DIGITS.get, match[0])) + "}", text)
    text = _LOWERED.sub(lambda match: "_{" + "".join(map(_DIGITS.get, match[0])) + "}", text)
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2] or match[3]}}}", text)
    return _GREEK.sub(_greek, text).translate(_SIGNS)


def _greek(match: re.Match[str]) -> str:
    kind, _, name = unicodedata.name(match[0], "").removeprefix("GREEK ").partition(" LETTER ")
    if not name.isalpha():
        return match[0]
    return "\\" + (name.lower() if kind == "SMALL" else name.capitalize()) + " "
