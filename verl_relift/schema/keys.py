"""The keys that have rules, and which key may be meant by one that does not exist."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from . import actor, algorithm, data, method, model, rollout, run
from .rules import Rule, Unchecked

RULES: dict[str, Rule] = {
    key: rule for group in (run, method, data, algorithm, model, actor, rollout) for key, rule in group.KEYS.items()
}
NULLABLE = frozenset(algorithm.NULLABLE)

_ACTOR = "actor_rollout_ref.actor"
# What other trainers, and verl with its other engines, call a key or a group of this program's engine.
_ELSEWHERE = {
    "learning_rate": f"{_ACTOR}.optim.lr",
    "ulysses_sequence_parallel_size": f"{_ACTOR}.megatron.context_parallel_size",
    "fsdp_config": f"{_ACTOR}.megatron.*",
}


def rule_of(key: str) -> Rule | None:
    """Return the rule of a key, which may be that of a group above it."""
    name = key
    while name not in RULES:
        name, _, _ = name.rpartition(".")
        if not name:
            return None
    # Only a group that something else checks says anything about the keys below it.
    return RULES[name] if name == key or isinstance(RULES[name], Unchecked) else None


def groups_above(key: str) -> Iterator[str]:
    """Yield the groups that a key is in, from the innermost."""
    while key := key.rpartition(".")[0]:
        yield key


def names_of(config: DictConfig) -> Iterator[str]:
    """Yield the dotted names of all keys and groups."""

    def below(group: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for name, value in group.items():
            yield f"{prefix}{name}"
            if isinstance(value, Mapping):
                yield from below(value, f"{prefix}{name}.")

    return below(OmegaConf.to_container(config, resolve=False), "")


def may_be_added(key: str, values: Mapping[str, Any]) -> bool:
    """Return whether something reads a key that the configuration does not have.

    It is in a group with names of others, such as a function's keywords, or its reader has a default.
    """
    rule = rule_of(key)
    closed = rule is None or (isinstance(rule, Unchecked) and rule.complete)
    closed = closed or rule_of(f"reward.{key}") is not None  # verl's former place of it
    return not closed and all(values.get(group) is None for group in groups_above(key))


def key_meant(key: str, names: set[str], values: Mapping[str, Any]) -> str | None:
    """Return a question that names the key that was probably meant, which may be in another group."""
    if counterpart := called_here(key):
        return f"did you mean {counterpart}?"
    missing = next(group for group in [*reversed([*groups_above(key)]), key] if group not in names)
    rules = [name for name in RULES if name in names or may_be_added(name, values)]
    groups = [group for name in rules for group in groups_above(name)]
    known = dict.fromkeys([*rules, *groups, *(name for name in sorted(names) if rule_of(name) is not None)])
    others, rest = similar(missing, known), key.removeprefix(missing)
    there = sorted((other + rest for other in others if other + rest in names), key=_is_conditional)
    same = [other for other in others if other.rpartition(".")[2] == missing.rpartition(".")[2]]
    beside = [other for other in others if parent(other) == parent(missing)]
    new = [f"reward.{key}", *(other + rest for other in [*same, *beside])]
    found = [*there, *(f"+{name}" for name in new if name not in names and may_be_added(name, values))]
    return f"did you mean {found[0]}?" if found else None


def called_here(key: str) -> str | None:
    """Return what stands here for a key of other trainers and engines, or for the group of theirs that it is in."""
    if key.startswith("method."):
        return None  # these are this program's own
    return next((_ELSEWHERE[name] for name in reversed(key.split(".")) if name in _ELSEWHERE), None)


def parent(key: str) -> str:
    """Return the group that a key is in."""
    return key.rpartition(".")[0]


def _is_conditional(key: str) -> bool:
    """Return whether a key acts in some runs only."""
    rule = rule_of(key)
    return rule is not None and rule.when is not None


def meant(key: str, known: Iterable[str]) -> str:
    """Return what to do about a key that does not exist: a similar name in its group, or the name in another."""
    close = similar(key, known)
    return f"did you mean {close[0]}?" if close else "remove it"


def _ends(name: str) -> tuple[str, str]:
    """Return the first and the last word of a name."""
    return name.partition("_")[0], name.rpartition("_")[2]


def similar(key: str, known: Iterable[str]) -> list[str]:
    """Return which keys one may have meant: the similar names in its group, then the same name in other groups."""
    group, _, name = key.rpartition(".")
    places = [(other, *other.rpartition(".")[::2]) for other in known]
    beside = {last: other for other, parent, last in places if parent == group}
    # A name that lacks a word in the middle (total_steps) is nearer to that one than to another of as many letters.
    ends = [last for last in beside if "_" in name and _ends(last) == _ends(name) and last != name]
    close = [beside[match] for match in dict.fromkeys([*ends, *difflib.get_close_matches(name, beside, cutoff=0.7)])]
    return close + [other for other, _, last in places if last == name]
