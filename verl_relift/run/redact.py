"""Hide secrets before a configuration is written: by the names of keys, and by what a value looks like.

A file of a run is made to be shared: its folder is read by colleagues, its report is sent around.
"""

import re
from functools import cache
from itertools import pairwise
from typing import Any

HIDDEN = "***"

# Words of a key. Any of these makes its value a secret, wherever it stands in the key.
_SECRET_WORDS = {"secret", "secrets", "password", "passwords", "passwd", "passphrase", "pwd", "credential"}
_SECRET_WORDS |= {"credentials", "apikey", "apikeys", "bearer", "authorization", "cookie", "cookies"}
# The same for two words beside each other.
_SECRET_PAIRS = {(first, last) for first in ("api", "private", "access", "signing", "auth") for last in ("key", "keys")}
# `token` is a secret at the end of a key, except where it is a token of a model's vocabulary; `tokens` are counted.
_VOCABULARY = {"bos", "eos", "pad", "unk", "sep", "cls", "mask", "image", "video", "audio", "stop", "per", "next"}
_TOKEN_OWNERS = {"access", "auth", "api", "bearer", "refresh", "session", "hf", "hub", "oauth"}
# Under these keys every value is hidden: what they hold is up to whoever set it.
_SECRET_GROUPS = {"env_vars", "environ", "headers"}
# The value names where the secret is.
_POINTERS = {"env", "file", "path"}

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_URL_PASSWORD = re.compile(r"(?P<before>[a-zA-Z][\w+.-]*://[^\s/?#:@]*):[^\s/?#]*@")
_URL_USER = re.compile(r"(?P<before>https?://)[^\s/?#:@]+@")
_ASSIGNMENT = re.compile(r"(?P<name>[\w-]+)(?P<sign>=|%3D)(?P<value>[^\s&;,'\"]+)", re.IGNORECASE)
_SIGNATURES = {"sig", "signature", "key"}  # of a URL's query
# What issuers have made recognizable.
_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|xox[abprs]-[\w-]{10,}|AKIA[A-Z0-9]{16}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
    r"|(?<=Bearer )\S+|(?<=Basic )[A-Za-z0-9+/=]{8,}"
)


def redact(value: Any, key: str = "") -> Any:
    """Return a copy of nested dicts and lists in which secrets are `***`.

    Args:
        value: plain Python: dicts, lists, texts, numbers, None.
        key: the key that holds it.
    """
    if isinstance(value, dict):
        group = key.lower() in _SECRET_GROUPS
        return {name: _hide(item) if group else redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, key) for item in value]
    if names_secret(key) and not isinstance(value, bool):
        return _hide(value)
    return redact_text(value) if isinstance(value, str) else value


def redact_text(text: str) -> str:
    """Hide the passwords of URLs, `name=value` pairs with a secret's name, and keys of well-known forms."""
    text = _URL_PASSWORD.sub(rf"\g<before>:{HIDDEN}@", text)
    text = _URL_USER.sub(rf"\g<before>{HIDDEN}@", text)
    text = _ASSIGNMENT.sub(lambda found: _assignment(found, "?" in text), text)
    return _KNOWN.sub(HIDDEN, text)


@cache
def names_secret(key: str) -> bool:
    """Whether the value of a key of that name is a secret."""
    words = [word.lower() for word in _WORD.findall(key)]
    if not words or words[-1] in _POINTERS:
        return False
    if _SECRET_WORDS & set(words) or _SECRET_PAIRS & set(pairwise(words)):
        return True
    owner = words[-2] if len(words) > 1 else ""
    if words[-1] == "token":
        return owner not in _VOCABULARY
    return words[-1] == "tokens" and owner in _TOKEN_OWNERS


def _hide(value: Any) -> Any:
    """Hide every value below; what is empty says only that nothing is set."""
    if isinstance(value, dict):
        return {name: _hide(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide(item) for item in value]
    return value if value is None or value == "" else HIDDEN


def _assignment(found: re.Match, in_url: bool) -> str:
    name = found["name"]
    secret = names_secret(name) or (in_url and name.lower().rpartition("-")[2] in _SIGNATURES)
    return f"{name}{found['sign']}{HIDDEN}" if secret else found[0]
