"""What the value of a key may be. A rule also says in which runs the key acts at all."""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

Lookup = Callable[[str], Any]  # the resolved value of a key; None where there is none


@dataclass(frozen=True)
class Condition:
    """Settings without which a key does nothing."""

    text: str  # for people: what must hold
    holds: Callable[[Lookup], bool]


def when(key: str, *values: Any) -> Condition:
    """Return the condition that a key has one of these values."""
    return Condition(f"{key}={' or '.join(map(shown, values))}", lambda value: value(key) in values)


def when_set(key: str) -> Condition:
    """Return the condition that a key is neither null, nor false, nor empty."""
    return Condition(f"a value of {key}", lambda value: bool(value(key)))


def either(*conditions: Condition) -> Condition:
    """Return the condition that one of several holds."""
    text = " or ".join(condition.text for condition in conditions)
    return Condition(text, lambda value: any(condition.holds(value) for condition in conditions))


@dataclass(frozen=True)
class Rule:
    """Any value."""

    _: KW_ONLY
    when: Condition | None = None  # None: the key always acts

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, to be read after `KEY=VALUE`, or None."""
        return None


@dataclass(frozen=True)
class Unchecked(Rule):
    """A key, or a group with all keys below it, that something else checks."""

    complete: bool = False  # none of the group's keys may be removed


@dataclass(frozen=True)
class Flag(Rule):
    """True or false."""

    def problem(self, value: Any) -> str | None:
        return None if isinstance(value, bool) else "must be true or false"


@dataclass(frozen=True)
class Whole(Rule):
    """A whole number from `low` on."""

    low: int | None = None
    null: bool = False
    also: tuple[int, ...] = ()  # values below `low` with a meaning of their own

    def problem(self, value: Any) -> str | None:
        if value is None and self.null:
            return None
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and (self.low is None or value >= self.low or value in self.also):
            return None
        allowed = "a whole number" if self.low is None else f"a whole number of at least {self.low}"
        return "must be " + " or ".join([allowed, *map(str, self.also), *(["null"] if self.null else [])])


@dataclass(frozen=True)
class Number(Rule):
    """A finite number within bounds."""

    low: float | None = None
    high: float | None = None
    above: float | None = None  # an open lower bound
    below: float | None = None  # an open upper bound
    null: bool = False

    def problem(self, value: Any) -> str | None:
        if value is None and self.null:
            return None
        finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if finite and self._within_bounds(value):
            return None
        bounds = [("of at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below)]
        limits = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        allowed = f"a finite number {limits}".strip()
        return f"must be {allowed}{' or null' if self.null else ''}"

    def _within_bounds(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


@dataclass(frozen=True)
class Text(Rule):
    """A text that is not empty."""

    null: bool = False

    def problem(self, value: Any) -> str | None:
        if (value is None and self.null) or (isinstance(value, str) and value.strip()):
            return None
        return f"{'is empty; it ' if isinstance(value, str) else ''}must be a text{' or null' if self.null else ''}"


@dataclass(frozen=True)
class Choice(Rule):
    """One of a few values."""

    values: tuple[Any, ...]

    def problem(self, value: Any) -> str | None:
        known = isinstance(value, str | int | None) and any(value == v and type(value) is type(v) for v in self.values)
        return None if known else f"must be one of {', '.join(map(shown, self.values))}"


@dataclass(frozen=True)
class Only(Rule):
    """A single value, and why nothing else works."""

    value: Any
    why: str

    def problem(self, value: Any) -> str | None:
        if value == self.value and type(value) is type(self.value):
            return None
        return f"must be {shown(self.value)}: {self.why}"


@dataclass(frozen=True)
class Each(Rule):
    """A list whose items follow a rule."""

    item: Rule
    length: int | None = None
    containing: tuple[Any, ...] = ()
    null: bool = False
    or_one: bool = False  # a single item stands for a list of it

    def problem(self, value: Any) -> str | None:
        if value is None and self.null:
            return None
        if self.or_one and isinstance(value, str):
            return self.item.problem(value)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            return "must be a list with at least one item"
        if self.length is not None and len(value) != self.length:
            return f"must be a list of {self.length} items"
        for item in value:
            if wrong := self.item.problem(item):
                return f"has the item {shown(item)}, which {wrong}"
        missing = [item for item in self.containing if item not in value]
        return f"must contain {', '.join(map(str, missing))}" if missing else None


@dataclass(frozen=True)
class Packaged(Rule):
    """A name that needs a package; None for one that needs none."""

    packages: tuple[tuple[str, str | None], ...]

    def problem(self, value: Any) -> str | None:
        packages = dict(self.packages)
        if not isinstance(value, str) or value not in packages:
            return f"must be one of {', '.join(packages)}"
        package = packages[value]
        if package is not None and importlib.util.find_spec(package) is None:
            return f"needs the package {package}, which is not installed"
        return None


@dataclass(frozen=True)
class Dotted(Rule):
    """The dotted name of a class or module whose module can be found, or null."""

    module: bool = False  # the name of a module, not of a class in one

    def problem(self, value: Any) -> str | None:
        if value is None:
            return None
        name = value if self.module or not isinstance(value, str) else value.rpartition(".")[0]
        try:
            found = isinstance(name, str) and bool(name) and importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            found = False
        return None if found else "must be a dotted name that can be imported, or null"


def under(prefix: str, keys: Mapping[str, Any]) -> dict[str, Rule]:
    """Return nested groups of rules as one dictionary by dotted key."""
    rules: dict[str, Rule] = {}
    for name, rule in keys.items():
        key = f"{prefix}.{name}" if prefix else name
        rules |= under(key, rule) if isinstance(rule, Mapping) else {key: rule}
    return rules


def shown(value: Any) -> str:
    """Return a value as one types it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    return str(value)
