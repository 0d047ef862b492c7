"""Say in one line what is wrong with an override that Hydra refuses."""

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from .composition import defaults
from .keys import key_meant, may_be_added, names_of, parent, similar
from .quoting import misread

_CONFIG = Path(__file__).parents[1] / "config"
_NO_KEY = re.compile(r"Could not override '(.*?)'\.\nTo append to your config use \+(.*)", re.DOTALL)
_THERE_ALREADY = re.compile(r"Could not append to config\. An item is already at '(.*?)'")
_NO_FILE = re.compile(r"In '.*?': Could not find '(\w+)/(.*?)'\n", re.DOTALL)
_NO_CONFIGURATION = re.compile(r"Cannot find primary config '(.*?)'")
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
    if found := _NO_FILE.match(text):
        return _no_choice(*found.groups())
    if found := _NO_CONFIGURATION.match(text):
        return _no_choice("", found[1])
    if isinstance(error, InterpolationResolutionError) and (removed := _removed(overrides)):
        return f"{removed}: other parts of the configuration need it; leave this out, or set another value"
    of_stage = [error.override] if isinstance(error, OverrideParseException) else []
    if line := misread([*overrides, *of_stage]):
        return line
    found = _NO_KEY.fullmatch(text)
    if found is None:
        # Of Hydra's lines the first names the key or file; the others are advice that rarely fits.
        return f"{text.splitlines()[0].rstrip('.')}; {_MORE}"
    method = next((o.partition("=")[2] for o in overrides if o.startswith("method=")), "relift")
    default, values = defaults(method, platform)
    names = set(names_of(default))
    key, line = found.groups()
    key = next(_new(key, OverridesParser.create().parse_override(line).value(), names), key)
    if may_be_added(key, values):
        add = f"+ in front adds it: {shlex.quote(f'+{line}')}"
        beside = [other for other in similar(key, sorted(names)) if parent(other) == parent(key)]
        typo = f"did you mean {beside[0]}? Otherwise " if beside else ""
        return f"{key}: the configuration does not have this key yet; {typo}{add}"
    of_method = f" with method={method}" if key.startswith("method.") else ""
    having = ", ".join(_methods_with(key.removeprefix("method."))) if of_method else ""
    elsewhere = f"these methods have it: {having}" if having else None
    return f"{key}: there is no such key{of_method}; {elsewhere or key_meant(key, names, values) or _MORE}"


def _no_choice(group: str, name: str) -> str:
    """Return the line about a value of `method` or `platform` that does not exist, or of `--config-name`: group ''."""
    names = sorted(file.stem for file in (_CONFIG / group).glob("*.yaml"))
    close = difflib.get_close_matches(name.lower(), names) if len(names) > 3 or name.lower() in names else []
    fix = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(names)}"
    if not group:
        return f"--config-name {name}: there is no such configuration; {fix}, or give the folder of yours: --config-dir"
    return f"{group}={name}: there is no such {group}; {fix}"


def _removed(overrides: Sequence[str]) -> str | None:
    """Return the first override that takes a key or a group away."""
    return next((override for override in overrides if override.startswith("~")), None)


def _methods_with(key: str) -> Iterator[str]:
    """Yield the methods whose files in the configuration have a key of the group `method`."""
    yield from (file.stem for file in sorted((_CONFIG / "method").glob("*.yaml")) if _has(file, key))


def _has(file: Path, key: str) -> bool:
    """Return whether a file of the configuration has a key of the group `method`, or one that it starts from."""
    config = OmegaConf.load(file)
    if key in set(names_of(config.get("method", config))):
        return True
    parts = [part for part in config.get("defaults", []) if part != "_self_"]
    others = (_CONFIG / part.lstrip("/") if part.startswith("/") else file.parent / part for part in parts)
    return any(_has(other.with_suffix(".yaml"), key) for other in others)


def _new(key: str, value: Any, names: set[str]) -> Iterator[str]:
    """Yield which keys an override sets that do not exist: its own, or some of the group that is its value."""
    if key not in names:
        yield key
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _new(f"{key}.{name}", item, names)
