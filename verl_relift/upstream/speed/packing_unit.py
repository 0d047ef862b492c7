"""The process of TransferQueue's `SimpleStorage` that holds rows; see `transfer_queue.py`."""

from ..fixes.queue_processes import StorageUnit
from .transfer_queue import PACKS, PackingName, pack, unpack


class PackingStorageUnit(StorageUnit):
    """Takes packed columns apart into rows when they are put, and packs rows for readers that unpack them."""

    storage_unit_id = PackingName()

    def _handle_put(self, message):
        message.body["data"] = {name: unpack(column) for name, column in message.body["data"].items()}
        return super()._handle_put(message)

    def _handle_get(self, message):
        response = super()._handle_get(message)
        if "data" in response.body and message.sender_id.endswith(PACKS):
            response.body["data"] = {name: pack(column) for name, column in response.body["data"].items()}
        return response
