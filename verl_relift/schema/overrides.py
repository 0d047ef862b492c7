"""Say in one line what is wrong with an override that Hydra refuses."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from .composition import RULES, defaults, groups_above, rule_of, similar
from .rules import Unchecked

_CONFIG = Path(__file__).parents[1] / "config"
_NO_KEY = re.compile(r"Could not override '(.*?)'\.\nTo append to your config use \+(.*)", re.DOTALL)
_THERE_ALREADY = re.compile(r"Could not append to config\. An item is already at '(.*?)'")
_MORE = "docs/train.md explains the keys, and --cfg job of verl_relift.train prints them"


def refusal(error: Exception, overrides: Sequence[str], platform: str) -> str:
    """Return the line that says what is wrong with an override, and what to write instead.

    Args:
        error: of Hydra or OmegaConf, from composing.
        overrides: of the command line.
        platform: `cuda` or `cpu`.
    """
    text = str(error).strip()
    if found := _THERE_ALREADY.match(text):
        return f"{found[1]}: the configuration has this key already; take away the + in front of it"
    found = _NO_KEY.fullmatch(text)
    if found is None:
        # Of Hydra's lines the first names the key or file; the others are advice that rarely fits.
        return f"{text.splitlines()[0].rstrip('.')}; {_MORE}"
    method = next((o.partition("=")[2] for o in overrides if o.startswith("method=")), "relift")
    default, values = defaults(method, platform)
    names = set(_names(default))
    key, line = found.groups()
    key = next(_new(key, OverridesParser.create().parse_override(line).value(), names), key)
    if _may_be_added(key, values):
        add = f"+ in front adds it: {shlex.quote(f'+{line}')}"
        beside = [other for other in similar(key, sorted(names)) if _parent(other) == _parent(key)]
        typo = f"did you mean {beside[0]}? Otherwise " if beside else ""
        return f"{key}: the configuration does not have this key yet; {typo}{add}"
    of_method = f" with method={method}" if key.startswith("method.") else ""
    having = ", ".join(_methods_with(key.removeprefix("method."))) if of_method else ""
    elsewhere = f"these methods have it: {having}" if having else None
    return f"{key}: there is no such key{of_method}; {elsewhere or _meant(key, names, values) or _MORE}"


def _methods_with(key: str) -> Iterator[str]:
    """Yield the methods whose files in the configuration have a key of the group `method`."""
    yield from (file.stem for file in sorted((_CONFIG / "method").glob("*.yaml")) if _has(file, key))


def _has(file: Path, key: str) -> bool:
    """Return whether a file of the configuration has a key of the group `method`, or one that it starts from."""
    config = OmegaConf.load(file)
    if key in set(_names(config.get("method", config))):
        return True
    parts = [part for part in config.get("defaults", []) if part != "_self_"]
    others = (_CONFIG / part.lstrip("/") if part.startswith("/") else file.parent / part for part in parts)
    return any(_has(other.with_suffix(".yaml"), key) for other in others)


def _names(config: DictConfig) -> Iterator[str]:
    """Yield the dotted names of all keys and groups."""

    def below(group: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for name, value in group.items():
            yield f"{prefix}{name}"
            if isinstance(value, Mapping):
                yield from below(value, f"{prefix}{name}.")

    return below(OmegaConf.to_container(config, resolve=False), "")


def _new(key: str, value: Any, names: set[str]) -> Iterator[str]:
    """Yield which keys an override sets that do not exist: its own, or some of the group that is its value."""
    if key not in names:
        yield key
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _new(f"{key}.{name}", item, names)


def _may_be_added(key: str, values: Mapping[str, Any]) -> bool:
    """Return whether something reads a key that the configuration does not have.

    It is in a group with names of others, such as a function's keywords, or its reader has a default.
    """
    rule = rule_of(key)
    closed = rule is None or (isinstance(rule, Unchecked) and rule.complete)
    closed = closed or rule_of(f"reward.{key}") is not None  # verl's former place of it
    return not closed and all(values.get(group) is None for group in groups_above(key))


def _meant(key: str, names: set[str], values: Mapping[str, Any]) -> str | None:
    """Return a question that names the key that was probably meant, which may be in another group."""
    missing = next(group for group in [*reversed([*groups_above(key)]), key] if group not in names)
    rules = [name for name in RULES if name in names or _may_be_added(name, values)]
    groups = [group for name in rules for group in groups_above(name)]
    known = dict.fromkeys([*rules, *groups, *(name for name in sorted(names) if rule_of(name) is not None)])
    others, rest = similar(missing, known), key.removeprefix(missing)
    there = sorted((other + rest for other in others if other + rest in names), key=_is_conditional)
    new = [f"reward.{key}", *(other + rest for other in others if _parent(other) == _parent(missing))]
    found = [*there, *(f"+{name}" for name in new if name not in names and _may_be_added(name, values))]
    return f"did you mean {found[0]}?" if found else None


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def _is_conditional(key: str) -> bool:
    """Return whether a key acts in some runs only."""
    rule = rule_of(key)
    return rule is not None and rule.when is not None
