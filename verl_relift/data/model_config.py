"""Reads the JSON files of a model folder, which somebody may have edited or downloaded in part."""

import json
from pathlib import Path
from typing import Any

_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
_TAKE = "take the file from the model's source"


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a model folder.

    Raises:
        ValueError: it cannot be read, or is something else; the message names the file.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); {_TAKE}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file}: not a JSON object; {_TAKE}")
    return value


def read_config(file: Path) -> dict[str, Any]:
    """Return the contents of a model's `config.json`.

    Raises:
        ValueError: it is no such file, or a size in it is none; the message names the file.
    """
    config = read_object(file)
    for name in _SIZES:
        value = config.get(name, 1)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{file}: {name}={json.dumps(value)} is not a whole number above 0; {_TAKE}")
    return config
