"""Demonstrations in another chat or think format than their prompts: trained on, they make a policy collapse."""

import re
from collections.abc import Sequence

from ..rewards.extract import THINK_CLOSE, THINK_OPEN
from .chat import opens_thought, without_repetition

# What chat templates write between messages. None of it is part of an answer.
_TURNS = re.compile(
    r"<\|(?:im_start|im_end|eot_id|start_header_id|end_header_id|assistant|user|system|end|endoftext|channel)\|>"
    r"|<(?:start|end)_of_turn>|\[/?INST\]|<[｜|](?:Assistant|User)[｜|]>|<\|(?:START|END)_OF_TURN_TOKEN\|>"
)
# Marks around thoughts, other than <think>.
_THOUGHTS = re.compile(r"<\|(?:begin|end)_of_thought\|>|◁/?think▷|\[/?THINK\]|</?(?:thought|thinking|reasoning)>")


def foreign_format(target: str, messages: Sequence[str], template: str, start: str) -> str | None:
    """Return why a demonstration has another format than its prompt, or None.

    Args:
        target: the demonstration.
        messages: the texts of the prompt's messages, which may ask for a format.
        template: the chat template's source.
        start: what it writes between a question and its answer.
    """
    turn = _TURNS.search(target)
    if turn is not None and not any(turn.group() in message for message in messages):
        return f"it has {turn.group()!r}, which chat templates write between messages"
    thought = _THOUGHTS.search(target)
    if thought is not None and not any(thought.group() in text for text in (*messages, template)):
        return f"it has {thought.group()!r}, of which neither the chat template nor the prompt knows"
    answer = without_repetition(target, start)
    if opens_thought(start) and THINK_CLOSE not in answer:
        return f"the chat template opens a thought with {THINK_OPEN}, and it never closes it with {THINK_CLOSE}"
    return None


def unasked_thought(target: str, messages: Sequence[str], template: str) -> str | None:
    """Return what is to be known of a demonstration that thinks although nothing asks for it, or None."""
    if THINK_OPEN not in target or any(THINK_OPEN in text for text in (*messages, template)):
        return None
    return f"it has {THINK_OPEN}, of which neither the chat template nor the prompt knows"
