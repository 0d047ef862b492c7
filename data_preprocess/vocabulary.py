"""Whether a model's tokenizer and its vocabulary agree: a token id that the embedding has no row for ends a run hours
later, or never.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROWS = ("embed_tokens.weight", "wte.weight", "lm_head.weight", "word_embeddings.weight")
_MAX_HEADER = 100 << 20  # bytes; the safetensors format's own bound


class ModelError(ValueError):
    """A model folder that cannot be used; says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`tokens` is the tokenizer's largest id + 1, `rows` the configuration's vocab_size, `embeddings` the weights' rows
    by name.
    """

    tokens: int
    rows: int
    embeddings: dict[str, int]


def check_vocabulary(model: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> Vocabulary:
    """Compare tokenizer, configuration and weights of a model folder. Weights that aren't safetensors are not looked
    into.

    Raises:
        ModelError: they disagree, or one of them cannot be read.
    """
    folder = Path(model)
    config = read_json(folder / "config.json")
    rows = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    if not isinstance(rows, int):
        raise ModelError(
            f"{folder}/config.json: vocab_size is {rows!r}, not a number; take the file from the model's source"
        )
    if tokenizer is None:
        from verl_relift.data.tokens import load_tokenizer

        tokenizer = load_tokenizer(str(folder))
    largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest[1] >= rows:
        raise ModelError(
            f"{folder}: the tokenizer's token {largest[0]!r} has id {largest[1]}, "
            f"the model's vocabulary ends at {rows - 1}; "
            "use the tokenizer that belongs to the model, or resize its embeddings"
        )
    for name in ("eos_token_id", "pad_token_id"):
        if getattr(tokenizer, name) is None:
            raise ModelError(
                f"{folder}: the tokenizer has no {name.removesuffix('_id')}; set one in tokenizer_config.json"
            )
    embeddings = embedding_rows(folder)
    for tensor, count in embeddings.items():
        if count < rows:
            raise ModelError(
                f"{folder}: {tensor} has {count} rows, config.json says vocab_size {rows}; correct vocab_size"
            )
    return Vocabulary(largest[1] + 1, rows, embeddings)


def embedding_rows(folder: Path) -> dict[str, int]:
    """Rows of the embedding and output matrices, read from the headers of the safetensors files.

    Raises:
        ModelError: a file is damaged.
    """
    rows = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in _header(path).items():
            if name.endswith(_ROWS) and len(tensor.get("shape", ())) == 2:
                rows[name] = tensor["shape"][0]
    return rows


def _header(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER + 1
        if length > _MAX_HEADER:
            raise ModelError(f"{path}: not a safetensors file; download it again")
        try:
            return json.loads(file.read(length))
        except ValueError as error:
            raise ModelError(f"{path}: damaged header ({error}); download it again") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        ModelError: it isn't there or isn't one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); give a folder in Hugging Face's format") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: not a JSON object; take the file from the model's source")
    return value
