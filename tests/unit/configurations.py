"""Configurations of many command lines: each file is composed once, and overrides are made in place and taken back."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict

from verl_relift.run.composition import compose_config


@cache
def _composed(name: str, method: str, platform: str) -> DictConfig:
    return compose_config(name, None, [f"method={method}"], platform)


def configuration(*overrides: str, name: str = "quickstart", method: str = "relift", platform: str = "cpu"):
    """What Hydra composes from these overrides, which are `key=value`, `+key=value` or `~key`."""
    with overridden(*overrides, name=name, method=method, platform=platform) as config:
        return deepcopy(config)


@contextmanager
def overridden(
    *overrides: str, name: str = "quickstart", method: str = "relift", platform: str = "cpu"
) -> Iterator[DictConfig]:
    """As `configuration`, but for the length of the context only: copying takes longer than most checks."""
    config = _composed(name, method, platform)
    before: list[tuple[DictConfig, dict]] = []
    with open_dict(config):
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            owner = config
            *path, key = override.key_or_group.split(".")
            for name in path:
                before.append((owner, dict(owner._content)))
                owner = owner._get_node(name) if isinstance(owner._get_node(name), DictConfig) else _new(owner, name)
            before.append((owner, dict(owner._content)))
            if override.is_delete():
                del owner[key]
            else:
                owner._content.pop(key, None)  # it would be changed where it is, and not come back
                owner[key] = override.value()
    try:
        yield config
    finally:
        for group, content in reversed(before):
            group._content.clear()
            group._content.update(content)


def _new(owner: DictConfig, name: str) -> DictConfig:
    owner[name] = {}
    return owner._get_node(name)
