"""Copies safetensors files one shard at a time, optionally converting them to another dtype."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .errors import ExportError

INDEX = "model.safetensors.index.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor on disk: its file, its shape and its dtype by safetensors' name."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements."""
        return int(torch.Size(self.shape).numel())


def list_tensors(folder: Path) -> dict[str, TensorEntry]:
    """List the tensors of a folder's safetensors files from their headers.

    Args:
        folder: a Hugging Face folder.

    Returns:
        The tensors by name.

    Raises:
        ExportError: there are no files, or a file or tensor that the index names is missing or incomplete.
    """
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text())["weight_map"]
        files = [folder / name for name in sorted(set(index.values()))]
    else:
        index, files = {}, sorted(folder.glob("*.safetensors"))
    if not files:
        raise ExportError(f"{folder}: no safetensors files; use an earlier checkpoint")
    entries: dict[str, TensorEntry] = {}
    for file in files:
        if not file.is_file():
            raise ExportError(f"{folder}: incomplete: no {file.name}, which {INDEX} names; use an earlier checkpoint")
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    view = opened.get_slice(name)
                    entries[name] = TensorEntry(file, tuple(view.get_shape()), view.get_dtype())
        except Exception as error:  # safetensors' error type for a damaged file is not public
            raise ExportError(f"{file}: damaged safetensors file ({error}); use an earlier checkpoint") from error
    absent = sorted(index.keys() - entries.keys())
    if absent:
        raise ExportError(f"{folder}: {INDEX} names {_some(absent)}, which no file holds; use an earlier checkpoint")
    return entries


def require_parameters(entries: dict[str, TensorEntry], folder: Path) -> list[str]:
    """Return the names to export: the parameters of the model that config.json describes.

    A tied output embedding is left out, as Hugging Face does.

    Args:
        entries: the tensors of the folder.
        folder: the folder, for its config.json.

    Raises:
        ExportError: a parameter is missing, has another shape, or is unknown to the architecture.
    """
    expected, tied = _expected_shapes(folder)
    absent = sorted(expected.keys() - entries.keys())
    unknown = sorted(entries.keys() - expected.keys() - tied)
    if absent:
        raise ExportError(f"{folder}: lacks {_some(absent)}; use an earlier checkpoint")
    if unknown:
        raise ExportError(f"{folder}: has {_some(unknown)}, which the architecture in config.json lacks")
    for name, shape in expected.items():
        if entries[name].shape != shape:
            raise ExportError(f"{folder}: {name} has shape {entries[name].shape}, but config.json implies {shape}")
    return sorted(expected)


def copy_weights(
    entries: dict[str, TensorEntry], names: list[str], output: Path, dtype: torch.dtype | None, max_shard_bytes: int
) -> dict[str, int]:
    """Write tensors as shards, with an index if there are several. Memory holds one shard at a time.

    Args:
        entries: the tensors on disk.
        names: names of the tensors to write, in order.
        output: folder of the shards.
        dtype: type to convert to; None keeps each tensor's own.
        max_shard_bytes: size limit of a shard; a larger tensor gets its own.

    Returns:
        Bytes by file name.

    Raises:
        ExportError: a tensor has NaN or infinite values, before or after the conversion.
    """
    shards = list(_plan(entries, names, dtype, max_shard_bytes))
    written, weight_map = {}, {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        tensors = {key: _read(entries[key], key, dtype) for key in shard}
        save_file(tensors, output / name, metadata={"format": "pt"})
        (output / name).chmod(0o644)
        weight_map |= dict.fromkeys(shard, name)
        written[name] = sum(t.numel() * t.element_size() for t in tensors.values())
        del tensors
    if len(shards) > 1:
        total = {"total_size": sum(written.values())}
        (output / INDEX).write_text(json.dumps({"metadata": total, "weight_map": weight_map}, indent=2) + "\n")
    return written


def _plan(
    entries: dict[str, TensorEntry], names: list[str], dtype: torch.dtype | None, max_shard_bytes: int
) -> Iterator[list[str]]:
    """Yield the names of each shard."""
    shard: list[str] = []
    size = 0
    for name in names:
        width = dtype.itemsize if dtype else _ITEM_SIZES[entries[name].dtype]
        needed = entries[name].elements * width
        if shard and size + needed > max_shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += needed
    yield shard


_ITEM_SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}


def _read(entry: TensorEntry, name: str, dtype: torch.dtype | None) -> torch.Tensor:
    with safe_open(entry.file, framework="pt") as opened:
        tensor = opened.get_tensor(name)
    _require_finite(tensor, name)
    if dtype is None or tensor.dtype is dtype:
        return tensor
    converted = tensor.to(dtype)
    _require_finite(converted, f"{name} as {dtype}")
    return converted


def _require_finite(tensor: torch.Tensor, name: str) -> None:
    # A finite sum proves that all elements are finite, and needs no second tensor. The sum of finite elements may
    # overflow, so a sum that is not finite proves nothing and is followed by a full check.
    if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all():
        raise ExportError(f"{name}: has NaN or infinite values; use an earlier checkpoint or another --dtype")


def _expected_shapes(folder: Path) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Return the parameter shapes of the architecture, and the names of tied parameters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    tied = {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else set()
    return {name: shape for name, shape in shapes.items() if name not in tied}, tied


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
