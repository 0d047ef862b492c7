"""Say in one line why Hydra can't read an override as one value, and how to write it."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from .keys import rule_of
from .rules import Each

_CLOSING = {"[": "]", "{": "}", "(": ")"}


def misread(overrides: Sequence[str]) -> str | None:
    """Return what is wrong with the first override that Hydra can't read as one value, or None."""
    return next((_line(overrides[i:]) for i, override in enumerate(overrides) if not _readable(override)), None)


def _readable(override: str) -> bool:
    if override.startswith("="):
        return False
    try:
        return not OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False


def _line(overrides: Sequence[str]) -> str:
    """Return the line about the first of these; the others may be its rest, behind a space."""
    key, equals, value = overrides[0].partition("=")
    name = key.lstrip("+~")
    if not equals or not name or re.search(r"\s", key) or value.startswith("="):
        return f"{overrides[0]}: must be key=value, with one = and no space before or after it"
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", value):
        return f"{name}={value}: write the number without commas: {key}={value.replace(',', '')}"
    if re.match(r"(choice|range|interval|glob)\(", value):
        return f"{name}={value}: a run has one value for each key; give one"
    if value[:1] in "'\"[{$" and (opened := _opened(value)):
        parts = (" ".join(overrides[:end]) for end in range(2, len(overrides) + 1))
        whole = next(filter(_readable, parts), None)
        return f"{name}={value}: {opened} is not closed" + (
            f"; with a space in it, it needs quotes: {_for_shell(whole)}" if whole else ""
        )
    if "," in value and value[0] not in "[{" and isinstance(rule_of(name), Each):
        wrong, value = "a list needs brackets", f"[{value}]"
    else:
        wrong = f"{_special(value)} in a value needs quotes"
        wrong = "~ is not replaced by a folder here" if wrong.startswith("~") else wrong
    written = f"{key}={_quoted(value)}"
    if not _readable(written):
        return f"{name}={value}: Hydra can't read this value; docs/train.md says what needs quotes"
    return f"{name}: {wrong}: {_for_shell(written)}"


def _opened(value: str) -> str:
    """Return the bracket or quote that a value opens last and does not close; empty if it closes all."""
    opened: list[str] = []
    for character in re.sub(r"\\.", "", value):
        last = opened[-1] if opened else ""
        if last in ("'", '"'):
            if character == last:
                opened.pop()
        elif character in "'\"" or character in _CLOSING:
            opened.append(character)
        elif last and character == _CLOSING[last]:
            opened.pop()
    return opened[-1] if opened else ""


def _items(value: str) -> list[str]:
    """Return the items of a list in brackets."""
    items = [""]
    for character in value[1:-1]:
        if character == "," and not _opened(items[-1]):
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]


def _quoted(value: str) -> str:
    """Return a value with quotes where Hydra needs them, and with the home folder's name in place of `~/`."""
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(map(_quoted, _items(value)))}]"
    if value.startswith("~/"):
        return _quoted(str(Path(value).expanduser()))
    return value if _readable(f"key={value}") else "'" + value.replace("'", "\\'") + "'"


def _special(value: str) -> str:
    """Return the first character of a value, or of an item of a list, that has a meaning for Hydra."""
    items = _items(value) if value.startswith("[") else [value]
    wrong = "".join(item for item in items if not _readable(f"key={item}"))
    return next((character for character in wrong if not _readable(f"key=a{character}a")), "what stands")


def _for_shell(override: str) -> str:
    """Return an override as one types it; in double quotes where that is enough."""
    return shlex.quote(override) if re.search(r'[$`"\\!]', override) else f'"{override}"'
