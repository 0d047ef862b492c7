r"""Names that math-verify confuses: it reads `A` as `a`, and drops the marks of `f'` and `A^T`."""

import re
import string

_NAME = re.compile(r"(?:\\[a-zA-Z]+(?:\{[^{}]*\})?|[a-zA-Z)}])?(?:\^\{?(?:\\prime|\\top|T)\}?|'+(?![a-zA-Z]))")
# Commands, with the words in them: their letters are no names.
_COMMAND = r"\\(?:text(?:bf|it|rm)?|mathrm|mathbb|mathcal|operatorname|begin|end)\{[^{}]*\}|\\[a-zA-Z]+"
_COMMANDS, _CAPITALS = re.compile(_COMMAND), re.compile(rf"({_COMMAND})|([A-Z])")
_UPPER, _LOWER = frozenset(string.ascii_uppercase), frozenset(string.ascii_lowercase)
_AFTER_NUMBER = re.compile(r"(?<=\d)'+")  # feet and minutes of arc


def same_marks(answer: str, truth: str) -> bool:
    """Return whether the same names are primed or transposed. What is before the only `=` of the two does not count."""
    if ("=" in answer) != ("=" in truth):
        answer, truth = answer.rpartition("=")[2], truth.rpartition("=")[2]
    return _marked(answer) == _marked(truth)


def _marked(latex: str) -> list[str]:
    if "'" not in latex and "^" not in latex:
        return []
    return sorted(name.replace("^{", "^").rstrip("}") for name in _NAME.findall(_AFTER_NUMBER.sub("", latex)))


def with_distinct_cases(answer: str, truth: str) -> tuple[str, str]:
    """Give capital letters other names where they must differ from small ones.

    An answer may write all of a truth's letters in the other case, `N` for `n`. Where `A` and `a` are both used in one
    text, or `A` stands for `a` and `b` for `B`, they are different names.
    """
    mine, theirs = _letters(answer), _letters(truth)
    raised = {letter for letter in mine & _UPPER if letter not in theirs and letter.lower() in theirs}
    lowered = {letter for letter in mine & _LOWER if letter not in theirs and letter.upper() in theirs}
    both = {letter.lower() for text in (mine, theirs) for letter in text & _UPPER if letter.lower() in text}
    if not both and not (raised and lowered):
        return answer, truth
    used = {letter.lower() for letter in mine | theirs}
    free = [letter for letter in string.ascii_lowercase if letter not in used and letter not in "deioO"]
    names = dict(zip(sorted((mine | theirs) & _UPPER), free, strict=False))

    def renamed(latex: str) -> str:
        return _CAPITALS.sub(lambda match: match[1] or names.get(match[2], match[2]), latex)

    return renamed(answer), renamed(truth)


def _letters(latex: str) -> set[str]:
    return {letter for letter in _COMMANDS.sub("", latex) if letter in _UPPER or letter in _LOWER}
