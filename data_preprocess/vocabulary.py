"""Checks that a model's tokenizer and its vocabulary agree.

If the embedding has no row for a token id, a run fails hours later, or trains on garbage without failing.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_relift.data.model_config import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROWS = ("embed_tokens.weight", "wte.weight", "lm_head.weight", "word_embeddings.weight")
_MAX_HEADER = 100 << 20  # bytes; the safetensors format's own bound


class ModelError(ValueError):
    """A model folder cannot be used; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Sizes of a model's vocabulary.

    Attributes:
        tokens: the tokenizer's largest id + 1.
        rows: vocab_size in the configuration.
        embeddings: rows of the embedding and output matrices, by tensor name.
    """

    tokens: int
    rows: int
    embeddings: dict[str, int]


def check_vocabulary(model: str | Path, tokenizer: "PreTrainedTokenizerBase | None" = None) -> Vocabulary:
    """Compare tokenizer, configuration and weights of a model folder.

    Only weights in safetensors files are read.

    Args:
        model: folder in Hugging Face's format.
        tokenizer: loaded from the folder if None.

    Raises:
        ModelError: they disagree, or one of them cannot be read.
        DataError: the tokenizer cannot be loaded.
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
            f"but the model's vocabulary ends at {rows - 1}; "
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
                f"{folder}: {tensor} has {count} rows, but vocab_size in config.json is {rows}; correct vocab_size"
            )
    return Vocabulary(largest[1] + 1, rows, embeddings)


def embedding_rows(folder: Path) -> dict[str, int]:
    """Return the rows of the embedding and output matrices, from the headers of the safetensors files.

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
    """Read a JSON object of a model folder.

    Raises:
        ModelError: the file is missing or does not contain a JSON object.
    """
    try:
        return read_object(path)
    except ValueError as error:
        raise ModelError(str(error)) from error
