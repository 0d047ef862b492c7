"""The fields of another package's dataclass as a schema: their names, and the types of their values."""

import dataclasses
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from typing import Any

from .keys import meant
from .rules import shown


def field_problems(
    group: str, values: Mapping[str, Any], cls: type, elsewhere: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Yield what of a group's values is no field of a dataclass, or of another type than the field.

    Args:
        group: the group's key.
        values: of the group, resolved.
        cls: the dataclass that they go to.
        elsewhere: fields that have another value already, each with the key that sets it.
    """
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    for name, value in values.items():
        line = f"{group}.{name}={shown(value)}"
        if name not in names:
            yield f"{line}: {cls.__name__} has no such setting; {meant(str(name), names)}"
        elif elsewhere and name in elsewhere:
            yield f"{line}: set {elsewhere[name]} instead"
        elif not fits(value, hints[name]):
            yield f"{line} must be of type {_spelled(hints[name])}"


def name_problems(group: str, values: Collection[str], known: Collection[str], owner: str) -> Iterator[str]:
    """Yield which names of a group its owner does not know."""
    for name in values:
        if name not in known:
            yield f"{group}.{name}: {owner} has no such setting; {meant(str(name), known)}"


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value from YAML can be of a type; true where the type has no form in YAML."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is typing.Annotated:
        return fits(value, arguments[0])
    if hint is types.NoneType:
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if (origin or hint) in (list, tuple, set):
        return isinstance(value, list)
    if (origin or hint) is dict:
        return isinstance(value, dict)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return isinstance(value, str) and value in hint.__members__
    return True


def _spelled(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"{hint.__name__} ({', '.join(hint.__members__)})"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_spelled(argument) for argument in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(shown, typing.get_args(hint)))
    hint = typing.get_origin(hint) or hint
    return "null" if hint is types.NoneType else getattr(hint, "__name__", str(hint))
