"""TransferQueue's ``SimpleStorage`` sends a column as one buffer, not as one buffer a row.

It gives every row of every column a pickled header and a message frame of its own, on the way in and on the way out:
with a dozen columns of short responses that is more work than the data. Here a column of one-dimensional tensors
travels as its values laid end to end and their lengths. What is stored, and everything else, is as before.

Readers, writers and storage processes must agree: the first two all import verl, whose plugin installs this; the last
are started by a process that does.
"""

from types import ModuleType
from typing import Any

import torch

from .. import versions as upstream
from ..post_import import after_import

_VALUES, _LENGTHS = "packed_values", "packed_lengths"


def install_after_import() -> None:
    """Arrange for the patches to run when TransferQueue is imported in this process."""
    after_import("transfer_queue.storage.managers.simple_storage_manager", _pack_in_managers)
    after_import("transfer_queue.storage.bootstrap.simple_storage_bootstrap", _start_packing_units)


def pack(column: Any) -> Any:
    """A column as it travels: ``{values: [tokens], lengths: [rows] int64}`` if it is of one-dimensional tensors.

    Args:
        column: jagged tensor [rows, *], list of a tensor per row, or anything else, which is given back as it is.
    """
    if isinstance(column, torch.Tensor):
        if not column.is_nested or column.layout != torch.jagged or column.dim() != 2:
            return column
        if column.lengths() is not None:  # there are gaps between the rows
            return pack(list(column.unbind()))
        return {_VALUES: column.values(), _LENGTHS: column.offsets().diff()}
    if not isinstance(column, list) or not column or not isinstance(column[0], torch.Tensor):
        return column
    dtype = column[0].dtype
    if not all(isinstance(row, torch.Tensor) and row.dim() == 1 and row.dtype == dtype for row in column):
        return column
    return {_VALUES: torch.cat(column), _LENGTHS: torch.tensor([len(row) for row in column])}


def unpack(column: Any) -> Any:
    """Undo :func:`pack`, but that a column of tensors is a list of its rows afterwards."""
    if isinstance(column, dict) and column.keys() == {_VALUES, _LENGTHS}:
        return list(column[_VALUES].split(column[_LENGTHS].tolist()))
    return column


def _pack_in_managers(module: ModuleType) -> None:
    """Readers and writers."""
    upstream.require("TransferQueue")
    manager = module.AsyncSimpleStorageManager
    put, get = manager._put_to_single_storage_unit, manager._get_from_single_storage_unit
    select = manager._select_by_positions

    def select_rows(field_data, positions: list[int]):
        # With one unit it is all of them, in order: no reason to take the column apart.
        everything = len(positions) == len(field_data) and positions == list(range(len(field_data)))
        return field_data if everything else select(field_data, positions)

    async def put_packed(self, global_indexes, storage_data, *args, **kwargs):
        packed = {name: pack(column) for name, column in storage_data.items()}
        return await put(self, global_indexes, packed, *args, **kwargs)

    async def get_packed(self, *args, **kwargs):
        fields, columns = await get(self, *args, **kwargs)
        return fields, {name: unpack(column) for name, column in columns.items()}

    manager._put_to_single_storage_unit, manager._get_from_single_storage_unit = put_packed, get_packed
    manager._select_by_positions = staticmethod(select_rows)


def _start_packing_units(module: ModuleType) -> None:
    """Storage processes, whose class Ray finds by its name: they need no plugin."""
    import ray

    from .packing_unit import PackingStorageUnit

    module.SimpleStorageUnit = ray.remote(num_cpus=1)(PackingStorageUnit)
