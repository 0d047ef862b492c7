"""TransferQueue's `SimpleStorage` sends a column as one buffer, not as one buffer a row.

A column of one-dimensional tensors travels as its values laid end to end and their lengths. What is stored, and
everything else, is as before.

A process packs only for one that unpacks. Both sides of a message carry a name, which TransferQueue exchanges anyway;
the names of storage processes and of the managers in readers and writers end in `PACKS` where these patches are
active. So processes with and without them, which an environment or a version that differs between two hosts can make,
still work together, one buffer a row.
"""

from types import ModuleType
from typing import Any

import torch

from ..fixes import transfer_queue as authentication
from ..registry import Where, add, patch, replace

_VALUES, _LENGTHS = "packed_values", "packed_lengths"
PACKS = "+packs"
_MANAGER = "transfer_queue.storage.managers.simple_storage_manager:AsyncSimpleStorageManager"


def install_after_import() -> None:
    """Install the patches of this module, and those of the processes that it starts, without verl's plugin."""
    authentication.install_after_import()
    pack_in_managers()
    start_packing_units()


def pack(column: Any) -> Any:
    """A column as it travels: `{values: [tokens], lengths: [rows] int64}` if it is of one-dimensional tensors.

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
    """Undo `pack`, except that a column of tensors is a list of its rows afterwards."""
    if isinstance(column, dict) and column.keys() == {_VALUES, _LENGTHS}:
        return list(column[_VALUES].split(column[_LENGTHS].tolist()))
    return column


def _rows_of(column: Any) -> Any:
    """A column as TransferQueue sends it: a jagged tensor as a list of its rows."""
    return list(column.unbind()) if isinstance(column, torch.Tensor) and column.is_nested else column


class PackingName:
    """An attribute that holds a process's name, and ends it in `PACKS` when it is set."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = f"_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> str:
        if instance is None:
            return self
        if self._key not in instance.__dict__:  # TransferQueue asks for it while it ends one that never started
            raise AttributeError(self._key)
        return instance.__dict__[self._key]

    def __set__(self, instance: Any, name: str) -> None:
        instance.__dict__[self._key] = name if name.endswith(PACKS) else name + PACKS


@patch(
    where=Where.EVERYWHERE,
    replaces=tuple(
        f"{_MANAGER}.{name}"
        for name in ("_put_to_single_storage_unit", "_get_from_single_storage_unit", "_select_by_positions")
    ),
    adds=(f"{_MANAGER}.storage_manager_id",),
    versions=("TransferQueue",),
    upstream="readers and writers give every row of every column a pickled header and a message frame of its own: with "
    "a dozen columns of short responses that is more work than the data",
    canary="test_transfer_queue_still_sends_a_frame_a_row",
)
def pack_in_managers(module: ModuleType) -> None:
    manager = module.AsyncSimpleStorageManager
    put, get = manager._put_to_single_storage_unit, manager._get_from_single_storage_unit
    select = manager._select_by_positions

    def select_rows(field_data, positions: list[int]):
        # With one unit it is all of them, in order: no reason to take the column apart.
        everything = len(positions) == len(field_data) and positions == list(range(len(field_data)))
        return field_data if everything else select(field_data, positions)

    async def put_packed(self, global_indexes, storage_data, *args, target_storage_unit, **kwargs):
        prepare = pack if target_storage_unit.endswith(PACKS) else _rows_of
        columns = {name: prepare(column) for name, column in storage_data.items()}
        return await put(self, global_indexes, columns, *args, target_storage_unit=target_storage_unit, **kwargs)

    async def get_packed(self, *args, **kwargs):
        fields, columns = await get(self, *args, **kwargs)
        return fields, {name: unpack(column) for name, column in columns.items()}

    name = PackingName()
    name.__set_name__(manager, "storage_manager_id")
    add(manager, "storage_manager_id", name)
    replace(manager, "_put_to_single_storage_unit", put_packed)
    replace(manager, "_get_from_single_storage_unit", get_packed)
    replace(manager, "_select_by_positions", staticmethod(select_rows))


@patch(
    where=Where.EVERYWHERE,
    replaces=("transfer_queue.storage.bootstrap.simple_storage_bootstrap:SimpleStorageUnit",),
    versions=("TransferQueue",),
    upstream="storage processes do the same as readers and writers. Ray finds the class that takes their place by its "
    "name, so they need no plugin",
    canary="test_transfer_queue_still_sends_a_frame_a_row",
)
def start_packing_units(module: ModuleType) -> None:
    import ray

    from .packing_unit import PackingStorageUnit

    replace(module, "SimpleStorageUnit", ray.remote(num_cpus=1)(PackingStorageUnit))
