"""Typed values of a record; a value that is missing or of the wrong type raises a `DataError` that names the fault."""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from .errors import DataError, Reason

Record = Mapping[str, Any]
_CHAT = re.compile(r"""\s*\[\s*\{\s*["'](?:role|content)["']\s*:""")  # a list of messages, in JSON or nearly
_SMALLEST_WRITTEN_OUT = 1e-15
_ROLES = ("user", "assistant", "system", "tool")
QUESTION_COLUMNS = ("question", "problem", "Question", "Problem")


def kind_of(value: Any) -> str:
    """Return what a value of JSON is, in words."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    kinds = {"text": str, "a number": int | float | Decimal, "a list": list, "an object": Mapping}
    return next((name for name, kind in kinds.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def text(record: Record, column: str) -> str:
    """Return the text in `column`.

    Raises:
        DataError: the column is missing, null, or not text.
    """
    if column not in record:
        there = ", ".join(record) or "none"
        raise DataError(
            Reason.MISSING_COLUMN,
            f"no such column (there are: {there})",
            column=column,
            remedy="check that this is the right file",
        )
    value = record[column]
    if not isinstance(value, str):
        reason = Reason.EMPTY_PROMPT if value is None and column in QUESTION_COLUMNS else Reason.WRONG_TYPE
        raise DataError(reason, f"{kind_of(value)}, not text", column=column, remedy="drop the row or fill it in")
    return value


def optional_text(record: Record, column: str | None) -> str | None:
    """Return the text in `column`; None if the column is absent or null.

    Raises:
        DataError: the value is not text.
    """
    return None if column is None or record.get(column) is None else text(record, column)


def scalar(record: Record, column: str) -> str:
    """Return text, or a number as text, the form of answers and identifiers. 70 and 70.0 both become "70".

    Raises:
        DataError: the column is missing, null, or neither text nor a finite number.
    """
    value = record.get(column)
    if isinstance(value, Decimal) and value.is_finite():
        return format(value.normalize(), "f")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return text(record, column)
    if not math.isfinite(value):
        problem = f"{value}, not a finite number"
        raise DataError(Reason.WRONG_TYPE, problem, column=column, remedy="drop the row or fill it in")
    if float(value).is_integer():
        return str(int(value))
    # No exponent where a person would write none: 0.00001, not 1e-05.
    return format(Decimal(repr(value)), "f") if abs(value) > _SMALLEST_WRITTEN_OUT else repr(value)


def chat(value: Any, column: str) -> list[tuple[str, str]]:
    """Read a chat list as (role, content) messages; text is one user message unless it is a chat list in JSON.

    Args:
        value: the value of the column.
        column: its name, for the error.

    Raises:
        DataError: the value is empty, or neither text nor a list of {"role": text, "content": text}.
    """
    if isinstance(value, str):
        listed = _CHAT.match(value)
        if listed is None:
            return [("user", value)]
        value = _from_json(value)
    elif value is not None and not isinstance(value, list):
        remedy = 'write text or [{"role": "user", "content": "..."}]'
        raise DataError(Reason.WRONG_TYPE, f"{kind_of(value)}, not text", column=column, remedy=remedy)
    if value is None or (isinstance(value, list) and not value):
        raise DataError(Reason.EMPTY_PROMPT, "empty", column=column, remedy="drop the row or fill it in")
    if not isinstance(value, list) or not all(is_message(message) for message in value):
        remedy = 'write [{"role": "user", "content": "..."}]'
        raise DataError(Reason.WRONG_TYPE, "not a list of messages", column=column, remedy=remedy)
    return [(message["role"], message["content"]) for message in value]


def question_chat(value: Any, column: str) -> list[tuple[str, str]]:
    """Read the chat that a model is to answer, as `chat` does.

    Raises:
        DataError: besides `chat`'s reasons, the last message is not the user's, so that the answer would be in the
            prompt.
    """
    messages = chat(value, column)
    if (role := messages[-1][0]) not in _ROLES:
        raise DataError(
            Reason.WRONG_TYPE,
            f"the last message has the role {role!r}, not user",
            column=column,
            remedy=f"name the roles {', '.join(_ROLES)}",
        )
    if role != "user":
        raise DataError(
            Reason.ANSWER_IN_PROMPT,
            f"the last message is the {role}'s, so the answer would be in the prompt",
            column=column,
            remedy="end the chat with the user's question, and put the answer into the column of demonstrations",
        )
    return messages


def _from_json(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return ()  # no list of messages


def is_message(value: Any) -> bool:
    """Return whether `value` is {"role": text, "content": text}."""
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def target_text(value: Any) -> str | None:
    """Read a demonstration as text.

    ReLIFT's and LUFFY's files contain a chat list, text, or null.

    Returns:
        The text of the assistant message; None if there is no text or only white space.

    Raises:
        DataError: the value has another type, or a demonstration of several turns.
    """
    if isinstance(value, str) and _CHAT.match(value):
        value = _from_json(value)
    if value is None or isinstance(value, str):
        found = value
    elif isinstance(value, list) and all(is_message(message) for message in value):
        turns = [message["content"] for message in value if message["role"] == "assistant"]
        if len(turns) > 1:
            problem, remedy = f"{len(turns)} messages of the assistant", "keep the one that answers the question"
            raise DataError(Reason.WRONG_TYPE, problem, column="target", remedy=remedy)
        found = turns[0] if turns else None
    else:
        raise DataError(
            Reason.WRONG_TYPE,
            f"{kind_of(value)}, not a chat list, text or null",
            column="target",
            remedy="use a chat list",
        )
    return found if found and not found.isspace() else None


def question_of(record: Record) -> str:
    """Return the question of a record in any known layout: this project's schema, or a question column.

    Raises:
        DataError: the record has no question.
    """
    if record.get("prompt") is not None:
        messages = chat(record["prompt"], "prompt")
        return next((content for role, content in reversed(messages) if role == "user"), "")
    for column in QUESTION_COLUMNS:
        if column in record:
            return text(record, column)
    remedy = f"expected prompt or one of {', '.join(QUESTION_COLUMNS)}"
    raise DataError(Reason.MISSING_COLUMN, "no column with a question", remedy=remedy)
