"""Multiple choice: a ground truth that is one capital letter is an option, and an answer names it in few ways."""

from __future__ import annotations

import re

from .text import unwrap_text

_OPTION = re.compile(r"[A-J]")
_LEADING = re.compile(r"\(?\s*(?P<letter>[A-Ja-j])\s*(?:\)|\.|:|$)\s*(?P<rest>.*)", re.DOTALL)
# A second option beside the first: `A) or B)`, `(a), (c)`, `A. 5 B. 6`. P(A) and f(a) are none.
_HEDGE = re.compile(
    r"(?:\bor|\band|[,/&|;])\s*\(?\s*[A-J]\b"
    r"|(?:\bor|\band|[,/&|;])\s*\(?\s*[a-j]\s*(?:[).,;]|$)"
    r"|(?<![A-Za-z}])\([A-Ja-j]\)"
    r"|(?<![\w(])[A-Ja-j]\)"
    r"|(?<![\w(])[A-J]\s*[.:]"
    r"|[\d.,;:)]\s+[A-J]$"
    r"|\b(?i:option|choice|answer)\s*\(?[A-Ja-j]\b"
)
# Nothing but letters: a list of options, or one more.
_LETTERS = re.compile(r"(?:[\W_]*\b(?:[A-Ja-j](?!\()|or|and)\b[\W_]*)+")
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-J](?![A-Za-z])")


def is_option(truth: str) -> bool:
    """Whether a ground truth is an option letter, A to J."""
    return _OPTION.fullmatch(truth) is not None


def decide_option(answer: str, truth: str) -> bool | None:
    """Compare an answer with an option letter; None when the answer names no option, nor begins with a letter in
    option form.

    `B`, `b`, `(B)`, `B.`, `\\text{B}`, `(B) 12 cm` name option B. Two options in one answer are wrong.
    """
    plain = unwrap_text(answer).replace("**", "").strip()
    match = _LEADING.fullmatch(plain)
    if match is None:
        return False if set(_LETTER.findall(plain)) - {truth} else None
    rest = match["rest"].strip()
    if rest and (_HEDGE.search(rest) or _LETTERS.fullmatch(rest)):
        return False
    return match["letter"].upper() == truth
