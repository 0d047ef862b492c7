"""Multiple choice: a ground truth of one capital letter is an option, which an answer can name in several forms."""

import re

from .text import unwrap_text

_OPTION = re.compile(r"[A-J]")
_LEADING = re.compile(
    r"(?:(?i:option|choice|answer)\b[: ]*)?\(?\s*(?P<letter>[A-Ja-j])\s*(?:\)|\.|:|$)\s*(?P<rest>.*)", re.DOTALL
)
# A second option after the first: `A) or B)`, `(a), (c)`, `A. 5 B. 6`. P(A) and f(a) are not options.
_HEDGE = re.compile(
    r"(?:\bor|\band|[,/&|;])\s*\(?\s*[A-J]\b"
    r"|(?:\bor|\band|[,/&|;])\s*\(?\s*[a-j]\s*(?:[).,;]|$)"
    r"|(?<![A-Za-z}])\([A-Ja-j]\)"
    r"|(?<![\w(])[A-Ja-j]\)"
    r"|(?<![\w(])[A-J]\s*[.:]"
    r"|[\d.,;:)]\s+[A-J]$"
    r"|\b(?i:option|choice|answer)\s*\(?[A-Ja-j]\b"
)
# Only option letters: a list of options, or one more option.
_LETTERS = re.compile(r"(?:[\W_]*\b(?:[A-Ja-j](?!\()|or|and)\b[\W_]*)+")
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-J](?![A-Za-z])")


def is_option(truth: str) -> bool:
    """Return whether a ground truth is an option letter, A to J."""
    return _OPTION.fullmatch(truth) is not None


def option_letter(truth: str) -> str:
    r"""Return the letter of a ground truth that is an option in brackets, `(B)` or `\text{(B)}`; else the text."""
    bare = unwrap_text(truth).strip()
    return bare[1:-1] if len(bare) == 3 and bare[0] == "(" and bare[2] == ")" and is_option(bare[1]) else truth


def decide_option(answer: str, truth: str) -> bool | None:
    r"""Compare an answer with an option letter.

    `B`, `b`, `(B)`, `B.`, `\text{B}` and `(B) 12 cm` name option B. An answer that names two options is wrong.

    Returns:
        The verdict; None if the answer neither names an option nor begins with a letter in one of these forms.
    """
    plain = unwrap_text(answer).replace("**", "").strip()
    match = _LEADING.fullmatch(plain)
    if match is None:
        return False if set(_LETTER.findall(plain)) - {truth} else None
    rest = match["rest"].strip()
    if rest and (_HEDGE.search(rest) or _LETTERS.fullmatch(rest)):
        return False
    return match["letter"].upper() == truth
