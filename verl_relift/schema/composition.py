"""Compare a composed configuration with the rules, and with what is composed when nothing is overridden."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..run.composition import compose_config
from .keys import NULLABLE, RULES, called_here, groups_above, key_meant, names_of, rule_of
from .rules import Rule, Unchecked, shown

_MISSING = "???"
_REFERENCE = re.compile(r"\$\{(?:oc\.select:)?\s*([\w.]+)")


def problems(config: DictConfig) -> Iterator[str]:
    """Yield a line for each key that breaks its rule, that nothing reads, or that does not act in this run.

    Args:
        config: composed, its interpolations not yet resolved.
    """
    # What another engine is missing or has besides would hide the one key that is wrong.
    for key in ("model_engine", "trainer.device"):
        value = OmegaConf.select(config, key)
        if wrong := RULES[key].problem(value):
            yield f"{key}={shown(value)} {wrong}"
            return
    name = OmegaConf.select(config, "method.name")
    try:
        default, default_keys = defaults(str(name), config.trainer.device)
    except HydraException:
        yield f"method.name={shown(name)}: there is no such method; docs/train.md lists them"
        return
    keys = _flat(config)
    yield from _removed(keys, default_keys)
    # Values that are as they were need no look: what they refer to has a rule of its own.
    changed = {key: raw for key, raw in keys.items() if not _same(raw, default_keys.get(key, _MISSING))}
    used = {name for raw in changed.values() if isinstance(raw, str) for name in _REFERENCE.findall(raw)}
    for key, raw in changed.items():
        rule = rule_of(key)
        try:
            value = _value(config, key, raw)
            same = key in default_keys and _same(_value(default, key, default_keys[key]), value)
        except OmegaConfBaseException as error:
            yield f"{key}={raw}: {str(error).splitlines()[0]}"
            continue
        if isinstance(OmegaConf.select(default, key), DictConfig) and not _is_group(key, default_keys):
            yield f"{key}={shown(value)} must be a group of settings"
        elif rule is not None:
            yield from _broken(config, key, value, rule, same)
        elif not (same or _is_in(key, used) or _is_group(key, default_keys) or _in_a_value(key, default_keys)):
            yield _unread(key, value, default, default_keys)


def _same(one: Any, other: Any) -> bool:
    return one == other and type(one) is type(other)  # true is not 1


def _is_group(key: str, keys: Iterable[str]) -> bool:
    return any(name.startswith(f"{key}.") for name in keys)


def _in_a_value(key: str, keys: Container[str]) -> bool:
    return any(group in keys for group in groups_above(key))


def _is_in(key: str, names: Iterable[str]) -> bool:
    """Return whether a key is one of these, or in a group of that name."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


@cache
def defaults(method_name: str, platform: str) -> tuple[DictConfig, dict[str, Any]]:
    """Return the configuration of a command line without overrides, and its raw values by dotted key."""
    config = compose_config("relift", None, [f"method={method_name}"], platform)
    return config, _flat(config)


def _flat(config: DictConfig) -> dict[str, Any]:
    """Return the raw values by dotted key; an empty group has none."""
    flat: dict[str, Any] = {}

    def visit(group: Mapping[str, Any], prefix: str) -> None:
        for name, value in group.items():
            key = f"{prefix}{name}"
            if isinstance(value, Mapping):
                visit(value, f"{key}.")
            elif not key.endswith("_target_"):
                flat[key] = value

    visit(OmegaConf.to_container(config, resolve=False), "")
    return flat


def _value(config: DictConfig, key: str, raw: Any) -> Any:
    """Return a key's value with its interpolations resolved."""
    if isinstance(raw, str) and raw == _MISSING:
        return raw
    if not isinstance(raw, list) and not (isinstance(raw, str) and "${" in raw):
        return raw
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _removed(keys: Mapping[str, Any], default_keys: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `~key` took away, and groups that became a value."""
    said = set()
    for key in default_keys:
        if key in keys:
            continue
        rule, group = rule_of(key), next((name for name in groups_above(key) if name in keys), None)
        if _is_group(key, keys):
            yield f"{key} must be a value, not a group of settings"
        elif group is None:
            if not isinstance(rule, Unchecked) or rule.complete:
                yield f"{key} is missing; leave it in"
        elif group not in said and not (group in NULLABLE and keys[group] is None):
            said.add(group)
            yield f"{group}={shown(keys[group])} must be a group of settings"


def _broken(config: DictConfig, key: str, value: Any, rule: Rule, same: bool) -> Iterator[str]:
    if wrong := rule.problem(value):
        yield f"{key}={shown(value)} {wrong}"
    elif not same and rule.when is not None and not rule.when.holds(lambda name: OmegaConf.select(config, name)):
        yield f"{key}={shown(value)} acts only with {rule.when.text}; set that, or remove the key"


def _unread(key: str, value: Any, default: DictConfig, default_keys: Mapping[str, Any]) -> str:
    if key in default_keys:
        counterpart = called_here(key)
        fix = f"did you mean {counterpart}?" if counterpart else "remove it"
        return f"{key}={shown(value)} has no effect: nothing in this program reads the key; {fix}"
    fix = key_meant(key, set(names_of(default)), default_keys) or "remove it"
    return f"{key}={shown(value)}: there is no such key; {fix}"
