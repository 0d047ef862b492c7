"""The final answer of a response: where the thought ends, which box counts, and what the other conventions read.

Every function takes time linear in the length of the response. docs/rewards.md states the rules.
"""

import re
from dataclasses import dataclass

from .outcome import GradeOutcome
from .settings import Convention, GradingRules, Thinking

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

# math-verify joins neighboring boxes into one list under the same two distances, so both read the same answer.
_ADJACENT_CHARS = 10
_LISTED_CHARS = 70
_LIST_SEPARATOR = re.compile(r"\b(?:and|or)\b|[,;]")

# Tried in this order: a box, an escaped backslash or brace (which is text, not structure), a brace.
_STRUCTURE = re.compile(r"\\(?:boxed|fbox)\s{0,16}\{|\\(?:[{}]|\\(?!boxed|fbox))|[{}]")
_BOX_START = re.compile(r"\\(?:boxed|fbox)\s{0,16}\{")
_PHRASE = re.compile(r"\banswer(?: is|:|\*\*:|:\*\*)", re.IGNORECASE)
_HASHES = "####"


@dataclass(frozen=True, slots=True)
class Extraction:
    """The final answer, or the outcome if there is none. Exactly one of the two is set.

    Attributes:
        answer: the answer as the response spells it, without surrounding white space.
        failure: `BAD_FORMAT` or `NO_ANSWER`.
    """

    answer: str | None = None
    failure: GradeOutcome | None = None


@dataclass(frozen=True, slots=True)
class _Box:
    start: int
    end: int
    content: str


def extract_answer(response: str, rules: GradingRules) -> Extraction:
    """Find the final answer of a response.

    Args:
        response: the whole text that the model generated.
        rules: the required format and the conventions to try, in order.
    """
    if rules.thinking is Thinking.REQUIRED and not has_closed_thought(response):
        return Extraction(failure=GradeOutcome.BAD_FORMAT)
    section = answer_section(response)
    for convention in rules.conventions:
        answer = _READERS[convention](section)
        if answer is not None:
            answer = answer.strip()
            return Extraction(answer=answer) if answer else Extraction(failure=GradeOutcome.NO_ANSWER)
    return Extraction(failure=GradeOutcome.NO_ANSWER)


def has_closed_thought(response: str) -> bool:
    """Return whether a response is one thought, closed exactly once, followed by text.

    The thought may lack its `<think>`, because the prompt may contain it.
    """
    if response.count(THINK_CLOSE) != 1:
        return False
    opened = response.count(THINK_OPEN)
    return opened == 0 or (opened == 1 and response.lstrip().startswith(THINK_OPEN))


def answer_section(response: str) -> str:
    """Return the text outside thoughts: after the last `</think>`, before a `<think>` that is never closed."""
    section = response[response.rfind(THINK_CLOSE) + len(THINK_CLOSE) :] if THINK_CLOSE in response else response
    reopened = section.find(THINK_OPEN)
    return section if reopened < 0 else section[:reopened]


def boxed_answer(section: str) -> str | None:
    """Return the content of the last complete box, or of the run of boxes that ends with it, joined by commas.

    Returns:
        None if there is no complete box; an empty string if the last one is empty.
    """
    boxes = _complete_boxes(section)
    if not boxes:
        return None
    contents = [boxes[-1].content.strip()]
    if not contents[0]:
        return ""
    following = boxes[-1]
    for box in reversed(boxes[:-1]):
        between = section[box.end : following.start]
        content = box.content.strip()
        if not _same_list(between, content != contents[-1]):
            break
        if content and content != contents[-1]:
            contents.append(content)
        following = box
    return ",".join(reversed(contents))


def _same_list(between: str, different: bool) -> bool:
    """Return whether two boxes with this text between them belong to one answer."""
    if len(between) < _ADJACENT_CHARS:
        return True
    return different and len(between) < _LISTED_CHARS and _LIST_SEPARATOR.search(between) is not None


def _complete_boxes(section: str) -> list[_Box]:
    """Return the innermost closed boxes in order.

    One pass with a stack finds them, so nested and unclosed boxes cost no second pass.
    """
    first = _BOX_START.search(section)
    if first is None:
        return []
    boxes: list[_Box] = []
    open_groups: list[tuple[int, int] | None] = []  # where a box's command and content start; None for a plain group
    for token in _STRUCTURE.finditer(section, first.start()):
        text = token.group()
        if text == "{":
            open_groups.append(None)
        elif text == "}":
            if not open_groups:
                continue
            opened = open_groups.pop()
            # A box around another box adds nothing: the inner one is the answer.
            if opened is not None and not (boxes and boxes[-1].start > opened[0]):
                boxes.append(_Box(opened[0], token.end(), section[opened[1] : token.start()]))
        elif text[-1] == "{" and len(text) > 2:
            open_groups.append((token.start(), token.end()))
    return boxes


def hashes_answer(section: str) -> str | None:
    """Return what follows the last `####` on its line; None if there is no `####`."""
    _, found, tail = section.rpartition(_HASHES)
    if not found:
        return None
    return tail.partition("\n")[0]


def phrase_answer(section: str) -> str | None:
    """Return what follows the last `Answer:` or `answer is` on its line, without emphasis and closing period."""
    ends = [match.end() for match in _PHRASE.finditer(section)]
    if not ends:
        return None
    line = section[ends[-1] :].partition("\n")[0]
    return line.strip().lstrip(":").strip().strip("*").strip().rstrip(".")


_READERS = {Convention.BOXED: boxed_answer, Convention.HASHES: hashes_answer, Convention.PHRASE: phrase_answer}
