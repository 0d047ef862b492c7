"""System prompts, one readable file each under templates/. `none` is no system prompt."""

from enum import StrEnum
from functools import cache
from pathlib import Path


class Template(StrEnum):
    """How a question is put to the model and how a demonstration answers it."""

    NONE = "none"  # only the question
    BOXED = "boxed"  # a system prompt that asks for \boxed{}
    THINK = "think"  # a system prompt that asks for <think>...</think> and \boxed{}


@cache
def system_prompt(template: Template) -> str | None:
    """Return the text of a template's system prompt; None for `none`."""
    if template == Template.NONE:
        return None
    return (Path(__file__).parent / "templates" / f"{template}.txt").read_text(encoding="utf-8").strip()


def chat(question: str, template: Template | None) -> list[tuple[str, str]]:
    """Return a question as (role, content) messages."""
    return dress([("user", question)], template)


def dress(messages: list[tuple[str, str]], template: Template | None) -> list[tuple[str, str]]:
    """Replace the system prompt of (role, content) messages by the template's; None keeps the messages."""
    if template is None:
        return messages
    system = system_prompt(template)
    rest = [(role, content) for role, content in messages if role != "system"]
    return rest if system is None else [("system", system), *rest]
