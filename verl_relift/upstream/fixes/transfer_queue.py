"""TransferQueue's sockets, open to the processes of the run only.

Its controller and its storage processes listen on the node's address, take messages from anybody, and unpickle them. So
whoever reaches the port runs code as the run's owner. Here every connection makes CurveZMQ's handshake first. The
server's keys come from the secret of the run (`run_secret.py`), and the public one is kept as secret as the other: a
client that does not know it does not get past the handshake, and a server that does not have its counterpart gets no
message of a client. What passes is encrypted.
"""

import functools
from collections.abc import Callable
from types import ModuleType

import zmq
from zmq.utils import z85

from ..registry import Where, patch, replace
from .run_secret import derive


def install_after_import() -> None:
    """Install the patches of this module alone, without verl's plugin."""
    authenticate()
    start_authenticating_processes()


@functools.cache
def _server_keys() -> tuple[bytes, bytes]:
    """The public and the private key of every server of this run, in ZeroMQ's encoding."""
    private = z85.encode(derive("TransferQueue"))
    return zmq.curve_public(private), private


@functools.cache
def _client_keys() -> tuple[bytes, bytes]:
    return zmq.curve_keypair()


@patch(
    where=Where.EVERYWHERE,
    replaces=("transfer_queue.*:create_zmq_socket",),
    versions=("TransferQueue",),
    upstream="takes messages from anybody who reaches its ports, and unpickles them; here a connection needs keys that "
    "only the processes of the run have",
    needed=lambda module: hasattr(module, "create_zmq_socket"),
    canary="test_transfer_queue_still_takes_messages_from_anybody",
)
def authenticate(module: ModuleType) -> None:
    # A module that was imported before has TransferQueue's function, one that is imported later has ours.
    if not hasattr(module.create_zmq_socket, "__wrapped__"):
        replace(module, "create_zmq_socket", _with_keys(module.create_zmq_socket))


@functools.cache
def _with_keys(create: Callable[..., zmq.Socket]) -> Callable[..., zmq.Socket]:
    @functools.wraps(create)
    def create_with_keys(ctx, socket_type, *args, **kwargs):
        socket = create(ctx, socket_type, *args, **kwargs)
        public, private = _server_keys()
        if socket_type == zmq.ROUTER:  # what TransferQueue binds; a ROUTER of its never connects
            socket.set(zmq.CURVE_SERVER, 1)
        else:
            socket.set(zmq.CURVE_SERVERKEY, public)
            public, private = _client_keys()
        socket.set(zmq.CURVE_PUBLICKEY, public)
        socket.set(zmq.CURVE_SECRETKEY, private)
        return socket

    return create_with_keys


@patch(
    where=Where.EVERYWHERE,
    replaces=(
        "transfer_queue.interface:TransferQueueController",
        "transfer_queue.storage.bootstrap.simple_storage_bootstrap:SimpleStorageUnit",
    ),
    versions=("TransferQueue",),
    upstream="the controller and the storage processes do not import verl, and with it the plugin; Ray finds the "
    "classes that take their place by their names, with the keys",
    canary="test_transfer_queue_still_takes_messages_from_anybody",
)
def start_authenticating_processes(module: ModuleType) -> None:
    import ray

    from . import queue_processes

    if module.__name__ == "transfer_queue.interface":
        replace(module, "TransferQueueController", ray.remote(num_cpus=1)(queue_processes.Controller))
    else:
        replace(module, "SimpleStorageUnit", ray.remote(num_cpus=1)(queue_processes.StorageUnit))
