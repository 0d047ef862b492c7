"""safetensors files to safetensors files, one shard at a time, converted to another dtype on the way."""

from __future__ import annotations

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
    """A tensor on disk: in which file, of which shape and dtype (safetensors' name of it)."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return int(torch.Size(self.shape).numel())


def list_tensors(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of a folder's safetensors files, by name, from their headers.

    Raises ExportError when a file that the index names is absent or cut short, or there is none at all.
    """
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text())["weight_map"]
        files = [folder / name for name in sorted(set(index.values()))]
    else:
        index, files = {}, sorted(folder.glob("*.safetensors"))
    if not files:
        raise ExportError(f"{folder}: no safetensors files")
    entries: dict[str, TensorEntry] = {}
    for file in files:
        if not file.is_file():
            raise ExportError(f"{folder}: {file.name} is absent, and {INDEX} names it; the checkpoint is incomplete")
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    view = opened.get_slice(name)
                    entries[name] = TensorEntry(file, tuple(view.get_shape()), view.get_dtype())
        except Exception as error:  # safetensors raises its own error type for a damaged file, and it is not public
            raise ExportError(
                f"{file}: not a whole safetensors file ({error}); the checkpoint is incomplete"
            ) from error
    absent = sorted(index.keys() - entries.keys())
    if absent:
        raise ExportError(f"{folder}: {_some(absent)} in {INDEX} but in no file; the checkpoint is incomplete")
    return entries


def require_parameters(entries: dict[str, TensorEntry], folder: Path) -> list[str]:
    """The names to export: those of the model that config.json describes, which all have to be there with its shapes.

    A tied output embedding is left out, as Hugging Face does. Raises ExportError for parameters that are absent,
    of another shape, or unknown to the architecture.
    """
    expected, tied = _expected_shapes(folder)
    absent = sorted(expected.keys() - entries.keys())
    unknown = sorted(entries.keys() - expected.keys() - tied)
    if absent:
        raise ExportError(f"{folder}: lacks {_some(absent)}; the checkpoint is incomplete")
    if unknown:
        raise ExportError(f"{folder}: has {_some(unknown)}, which the architecture in config.json does not know")
    for name, shape in expected.items():
        if entries[name].shape != shape:
            raise ExportError(f"{folder}: {name} is {entries[name].shape}, by config.json it should be {shape}")
    return sorted(expected)


def copy_weights(
    entries: dict[str, TensorEntry], names: list[str], output: Path, dtype: torch.dtype | None, max_shard_bytes: int
) -> dict[str, int]:
    """Write the named tensors to `output` as shards of at most `max_shard_bytes`, in `dtype` (None: as they are).

    Memory holds one shard. Writes an index when there is more than one. Returns bytes by file name.
    Raises ExportError for a tensor with NaN or infinite values, before or after the conversion.
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
    """Names in shards of at most the given size; a tensor that is larger has one to itself."""
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
    # The sum of a tensor is finite only if no number in it is NaN or infinite, and costs no second tensor; a finite
    # tensor's sum may overflow, so a sum that is not finite is looked at again.
    if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all():
        raise ExportError(f"{name}: has NaN or infinite values")


def _expected_shapes(folder: Path) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Parameter shapes of the architecture, and the names that are tied to another parameter."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    tied = {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else set()
    return {name: shape for name, shape in shapes.items() if name not in tied}, tied


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
