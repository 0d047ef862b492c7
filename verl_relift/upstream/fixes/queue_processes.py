"""TransferQueue's controller and storage processes, with the sockets of `transfer_queue.py`."""

from .transfer_queue import authenticate

authenticate()  # before the next import, which takes the function that makes sockets by its name

from transfer_queue.controller import TransferQueueController  # noqa: E402
from transfer_queue.storage.simple_storage import SimpleStorageUnit  # noqa: E402


class Controller(TransferQueueController.__ray_metadata__.modified_class):
    """As TransferQueue's."""


class StorageUnit(SimpleStorageUnit.__ray_metadata__.modified_class):
    """As TransferQueue's."""
