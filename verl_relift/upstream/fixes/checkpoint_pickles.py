"""What a checkpoint may make of itself when it is loaded: the types that Megatron writes, and no calls of its choice.

A checkpoint in torch's distributed format holds pickles: `.metadata`, and objects that are not tensors. A pickle names
functions, which loading it calls. Its weights, `common.pt` and what this program writes are loaded by torch's
restricted unpickler already.
"""

import functools
import importlib
import io
import logging
import pickle
from types import ModuleType, SimpleNamespace
from typing import Any, BinaryIO

import torch

from ..registry import Where, patch, replace

logger = logging.getLogger(__name__)

_FILES, _PLANNER = "torch.distributed.checkpoint.filesystem", "torch.distributed.checkpoint.default_planner"
_IN_METADATA = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.planner": {
        "BytesIOWriteData",
        "SavePlan",
        "TensorWriteData",
        "WriteItem",
        "WriteItemType",
    },
    _FILES: {"_StorageInfo", "_StoragePrefix"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
}


class _Metadata(pickle.Unpickler):
    """Reads the metadata of a checkpoint."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _IN_METADATA.get(module, ()):
            return getattr(importlib.import_module(module), name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype | torch.layout):
            return found
        problem = (
            f"the checkpoint's .metadata names {module}.{name}, which no checkpoint of Megatron does: somebody has "
            "made it to run code; don't load it"
        )
        logger.error(problem)  # torch continues without metadata, and says only that there is none
        raise pickle.UnpicklingError(problem)


def read_metadata(file: BinaryIO) -> Any:
    """Read a checkpoint's `.metadata`.

    Raises:
        pickle.UnpicklingError: it names something else than the types that Megatron writes.
    """
    return _Metadata(file).load()


@patch(
    where=Where.EVERYWHERE,
    replaces=(f"{_FILES}:pickle",),
    upstream="torch reads the metadata of a distributed checkpoint by `pickle.load`, which runs what the file says. "
    "Here only the types that Megatron writes can be in it",
    canary="test_torch_still_unpickles_metadata_without_limits",
)
def limit_metadata(module: ModuleType) -> None:
    replace(module, "pickle", SimpleNamespace(load=read_metadata, dump=pickle.dump))


@patch(
    where=Where.EVERYWHERE,
    replaces=(f"{_PLANNER}:DefaultLoadPlanner.load_bytes",),
    upstream="torch loads the objects of a distributed checkpoint that are no tensors without its own limits "
    "(`weights_only=False`). Here they pass through those first",
    canary="test_torch_still_loads_objects_without_limits",
)
def limit_objects(module: ModuleType) -> None:
    load_bytes = module.DefaultLoadPlanner.load_bytes

    @functools.wraps(load_bytes)
    def load_bytes_within_limits(self, read_item, value: io.BytesIO) -> None:
        with torch.serialization.safe_globals(_arrays()):
            torch.load(value, weights_only=True, map_location="cpu")
        value.seek(0)
        load_bytes(self, read_item, value)

    replace(module.DefaultLoadPlanner, "load_bytes", load_bytes_within_limits)


def _arrays() -> list:
    """What NumPy's generators, which a checkpoint of verl's holds, are pickled as."""
    import numpy as np

    return [np._core.multiarray._reconstruct, np.ndarray, np.dtype, np.dtypes.UInt32DType, np.dtypes.UInt64DType]
