"""Writes an exported folder: the order of the export, and all files other than the weights."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import check
from .card import Evaluation, write_card
from .checkpoint import Checkpoint
from .errors import ExportError
from .weights import DTYPES, TensorEntry, copy_weights, list_tensors, require_parameters

# The files of a tokenizer. They are copied byte for byte, because loading and saving could change them.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_DTYPE_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How to export.

    Attributes:
        dtype: float32, bfloat16, float16, or None for the checkpoint's own.
        max_shard_bytes: size limit of a weights file.
        chat_template: file whose text replaces the tokenizer's template, or None.
        overwrite: whether to replace an existing output folder.
    """

    dtype: str | None = None
    max_shard_bytes: int = 2 * 10**9
    chat_template: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: dtype, bytes per weights file, and its agreement with the checkpoint."""

    dtype: str
    files: dict[str, int]
    agreement: check.Agreement


def export(
    checkpoint: Checkpoint, output: Path, settings: ExportSettings, evaluations: Sequence[Evaluation] = ()
) -> Exported:
    """Write a checked Hugging Face folder. It appears under its name only after all checks have passed.

    Args:
        checkpoint: the checkpoint to export.
        output: the folder to write.
        settings: how to export.
        evaluations: evaluations to show in the model card.

    Raises:
        ExportError: the checkpoint or the output folder has a problem that the user can fix.
    """
    if output.exists() and any(output.iterdir()) and not settings.overwrite:
        raise ExportError(f"{output}: not empty; choose another --output, or add --overwrite")
    entries = list_tensors(checkpoint.weights)
    names = require_parameters(entries, checkpoint.weights)
    stored = _stored_dtype(entries, names)
    dtype = settings.dtype or stored
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        tokenizer = _write_tokenizer(checkpoint.weights, partial, settings.chat_template)
        _write_configs(checkpoint.weights, partial, dtype, tokenizer)
        check.check_tokenizer(partial)
        files = copy_weights(entries, names, partial, DTYPES[dtype], settings.max_shard_bytes)
        samples = check.sample_ids(tokenizer, checkpoint.run)
        reference = check.log_probs(checkpoint.weights, samples)
        agreement = check.compare(reference, check.log_probs(partial, samples), converted=dtype != stored)
        write_card(partial, output.resolve().name, checkpoint, dtype, agreement, evaluations)
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(dtype, files, agreement)


def _stored_dtype(entries: dict[str, TensorEntry], names: list[str]) -> str:
    """Return the dtype of most of the checkpoint's parameters."""
    numbers: dict[str, int] = {}
    for name in names:
        numbers[entries[name].dtype] = numbers.get(entries[name].dtype, 0) + entries[name].elements
    most = max(numbers, key=lambda dtype: numbers[dtype])
    if most not in _DTYPE_NAMES:
        raise ExportError(f"the checkpoint's weights are {most}; export supports {', '.join(_DTYPE_NAMES)}")
    return _DTYPE_NAMES[most]


def _write_tokenizer(source: Path, target: Path, chat_template: Path | None) -> Any:
    from transformers import AutoTokenizer

    if not (source / "tokenizer_config.json").is_file():
        raise ExportError(f"{source}: no tokenizer_config.json; the checkpoint was saved without its tokenizer")
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    shutil.copyfile(source / "config.json", target / "config.json")  # determines the tokenizer's class
    if chat_template is not None:
        (target / "chat_template.jinja").write_text(chat_template.read_text(encoding="utf-8"), encoding="utf-8")
    return AutoTokenizer.from_pretrained(target)


def _write_configs(source: Path, target: Path, dtype: str, tokenizer: Any) -> None:
    """Write config.json with the dtype, and a generation config that stops at the tokenizer's end token."""
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(source)
    config.dtype = dtype
    config.save_pretrained(target)
    if (source / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(source)
    else:
        generation = GenerationConfig.from_model_config(config)
    ends = generation.eos_token_id
    ends = list(ends) if isinstance(ends, list) else [] if ends is None else [ends]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
        ends.insert(0, tokenizer.eos_token_id)
    generation.eos_token_id = ends[0] if len(ends) == 1 else ends
    if generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.pad_token_id
    generation.save_pretrained(target)
