"""A chat as the model sees it. Training, validation and evaluation take their token ids from here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..rewards.extract import THINK_CLOSE, THINK_OPEN

# Where a part of a prompt's end can begin that a demonstration may repeat: a line, or a tag such as <think> or [THINK].
_PART = re.compile(r"^[^\S\n]*(?=\S)|(?=[<\[◁])", re.MULTILINE)


class PromptTooLong(ValueError):
    """A question has more tokens than `data.max_prompt_length`."""


def prompt_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]], **template: Any) -> list[int]:
    """Return a question's token ids in the model's chat template, up to where the answer begins.

    The template alone decides on special tokens, the beginning-of-sequence token included: the tokenizer adds none.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        messages: the chat.
        **template: arguments of the chat template.
    """
    return list(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            **{**template, "add_generation_prompt": True, "tokenize": True, "return_dict": False},
        )
    )


def template_variables(template: str) -> set[str]:
    """Return the names of the arguments that a chat template reads, beside the chat itself.

    Raises:
        jinja2.TemplateSyntaxError: it is no template.
    """
    from jinja2 import Environment, meta

    parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    return meta.find_undeclared_variables(parsed) - {"messages", "add_generation_prompt"}


def answer_start(tokenizer: Any, ids: Sequence[int], messages: Sequence[Mapping[str, str]]) -> str:
    r"""Return the text between a question and its answer, such as `\n\nAssistant: <think>\n`.

    Args:
        tokenizer: a Hugging Face tokenizer.
        ids: token ids of the prompt, from `prompt_ids`.
        messages: the chat that they render.
    """
    prompt = tokenizer.decode(list(ids), skip_special_tokens=False)
    question = messages[-1]["content"].strip()
    for end in (question, *question.split()[-1:]):  # a tokenizer may write white space in another way
        if end in prompt:
            return prompt[prompt.rindex(end) + len(end) :]
    return prompt


def without_repetition(text: str, start: str) -> str:
    r"""Return an answer without what the prompt has written of it already, as the policy would continue the prompt.

    After a prompt that ends with `<think>\n`, the answer `<think>\nWe see` is `We see`.

    Args:
        text: an answer as its author wrote it.
        start: the text between the question and the answer, from `answer_start`.
    """
    written = start.rstrip()
    space = start[len(written) :]
    answer = text.lstrip()
    for part in _PART.finditer(written):
        repeated = written[part.end() :]
        rest = answer[len(repeated) :]
        if not repeated or not answer.startswith(repeated) or (repeated[-1].isalnum() and rest[:1].isalnum()):
            continue
        both = next((i for i, (one, other) in enumerate(zip(space, rest, strict=False)) if one != other), None)
        return rest[min(len(space), len(rest)) if both is None else both :]
    return text


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of an answer in which the name of a special token is text.

    As a token, the name of the end-of-sequence token would end the answer in the middle. The marks of a thought stay
    tokens where they are special tokens: they are what the policy writes.

    Args:
        tokenizer: a Hugging Face tokenizer.
        text: an answer.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    named = {name for name in special if name in text}
    marks = named & {THINK_OPEN, THINK_CLOSE}
    if named == marks:
        return tokenizer.encode(text, add_special_tokens=False)
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(map(re.escape, sorted(marks)))})", text) if marks else [text]:
        ids += tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=piece not in marks)
    return ids


def graded_text(text: str, start: str) -> str:
    """Return an answer as the grader reads it: with the thought that its prompt has opened."""
    rest = without_repetition(text, start)
    return THINK_OPEN + rest if opens_thought(start) else rest


def opens_thought(start: str) -> bool:
    """Return whether an answer begins inside a thought, because the text before it opens one and does not close it."""
    return start.rfind(THINK_OPEN) > start.rfind(THINK_CLOSE)
