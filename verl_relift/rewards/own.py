"""A reward function of the user's: what keeps it from being called, and how it is made ready."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from . import verl_hook
from .function import THOUGHT, RewardFunction

_ARGUMENTS = ("data_source", "solution_str", "ground_truth", "extra_info")


@dataclass(frozen=True, slots=True)
class Keys:
    """How a command names the parts of the function in messages.

    Attributes:
        function: what names the function.
        path: what names its file, up to the path.
        name: what names it within its file, up to the name.
        kwargs: what has its keyword arguments.
    """

    function: str
    path: str
    name: str
    kwargs: str


def make(function: Any, correct_from: float | None, kwargs: Mapping[str, Any]) -> RewardFunction:
    """Return the function with its settings.

    A class is made once, with the keyword arguments, and its object is called. Any other function gets them with every
    call.
    """
    if isinstance(function, type):
        function, kwargs = function(**kwargs), {}
    return RewardFunction(function, correct_from, **kwargs)


class Unnamed(AttributeError):
    """A module has no function of a name; `there` are those that it has."""

    def __init__(self, there: Sequence[str]):
        super().__init__("no such function")
        self.there = there


def of_module(module: ModuleType, name: str) -> Any:
    """Return what a module has under a name.

    Raises:
        Unnamed: nothing, but it has functions or classes of its own.
        AttributeError: nothing, and it has none.
    """
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    there = [key for key in own if callable(vars(module)[key]) and not key.startswith("_")]
    if there and not hasattr(module, name):
        raise Unnamed(there)
    return getattr(module, name)


def loading_problem(keys: Keys, path: str, name: str, error: BaseException) -> str:
    """Return the line that says why a function could not be loaded."""
    cause = error.__cause__ or error
    if isinstance(cause, Unnamed):
        if path == verl_hook.PATH:
            return f"{keys.name}{name} names a function of this project's, which has no such one; set {keys.path}FILE"
        return f"{path} has {', '.join(cause.there)} and no {name}; set {keys.name}{cause.there[0]}"
    if isinstance(error, FileNotFoundError) and not Path(path).exists():
        return f"{keys.path}{path}: no such file; correct the path"
    why = ": ".join([type(cause).__name__, *str(cause).splitlines()[:1]])
    return f"{keys.function}: {name} cannot be loaded from {path} ({why}); correct it"


def call_problems(
    keys: Keys, path: str, name: str, function: Any, kwargs: Mapping[str, Any], batched: bool = True
) -> Iterator[str]:
    """Yield why a function that was loaded cannot be made or called with its keyword arguments.

    Args:
        keys: how the command names it.
        path: its file.
        name: its name in the file.
        function: what was loaded.
        kwargs: its keyword arguments.
        batched: whether this program calls it; otherwise verl does.
    """
    if not callable(function):
        yield f"{keys.name}{name}: not a function in {path}; name one"
        return
    if isinstance(function, type):
        if not batched:
            yield f"{keys.name}{name}: a class needs relift.rollout.batched=true; name a function instead"
            return
        yield from _refused(function, kwargs, f"{keys.kwargs}: {name}")
        function, kwargs = function.__call__, {"self": None}
    arguments = dict.fromkeys(_ARGUMENTS) | dict(kwargs)
    if batched and THOUGHT in inspect.signature(function).parameters:
        arguments[THOUGHT] = False
    for problem in _refused(function, arguments, f"{keys.function}: {name}"):
        given = ", ".join(name for name in arguments if name != "self")
        yield f"{problem}, and is called with ({given})"


def _refused(function: Any, kwargs: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield what a signature has against keyword arguments."""
    try:
        inspect.signature(function).bind(**kwargs)
    except TypeError as error:
        yield f"{name} cannot be called: {error}; it takes {inspect.signature(function)}"
