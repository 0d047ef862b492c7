"""Verified solutions of the data set as guidance: heads of answers, and hints in the question."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from ..rewards.function import RewardFunction
from ..settings import DemonstrationSettings
from ..types import Question
from .verify import Rejected, Solution, Tokenizer, make_demonstrations

_PLACES = re.compile(r"\{question\}|\{hint\}")

# What a tokenizer writes for a character of which it has only the first bytes.
_CUT_CHARACTER = "�"


def verified_solutions(
    questions: Sequence[Question],
    step: int,
    settings: DemonstrationSettings,
    tokenizer: Tokenizer,
    encode_prompt: Callable[[Question], tuple[int, ...]],
    reward: RewardFunction,
) -> tuple[dict[str, tuple[int, ...]], Counter[Rejected]]:
    """Return the token ids of the questions' solutions by draw, and how many questions have none, by reason.

    A solution is as the policy would write it: without what the prompt has written already (such as `<think>`), and
    without the end-of-sequence token.

    Raises:
        OverlongDemonstration: a verified one is too long and `settings.overlong` is `error`.
    """
    solutions = [Solution(question, question.target, step, settings.overlong) for question in questions]
    made = make_demonstrations(solutions, tokenizer, encode_prompt, settings, reward)
    by_draw = zip(questions, made, strict=True)
    found = {question.draw: d.response_ids[:-1] for question, d in by_draw if not isinstance(d, Rejected)}
    return found, Counter(d for d in made if isinstance(d, Rejected))


def head(solution: Sequence[int], fraction: float) -> tuple[int, ...]:
    """Return the first tokens of a solution, as many as are whole in this fraction of it."""
    return tuple(solution[: int(len(solution) * fraction)])


def as_text(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the head of a solution as text, without half a character at its end."""
    return tokenizer.decode(list(tokens), skip_special_tokens=True).rstrip(_CUT_CHARACTER)


def with_hint(messages: Sequence[dict[str, str]], template: str, hint: str) -> tuple[dict[str, str], ...]:
    """Return a chat whose last message, the question, has a hint.

    Args:
        messages: the chat that asks the question.
        template: text with `{question}` and `{hint}`.
        hint: what is put there, as it is.
    """
    *before, asked = messages
    places = {"{question}": asked["content"], "{hint}": hint}
    return (*before, {**asked, "content": _PLACES.sub(lambda place: places[place[0]], template)})
