"""The store through which the processes of a torch process group find each other."""

import errno
import functools
import socket
from types import ModuleType

from ..registry import Where, patch, replace


@patch(
    where=Where.EVERYWHERE,
    replaces=("torch.distributed.rendezvous:TCPStore",),
    upstream="listens on every interface of the host, though it knows the address at which the other processes look "
    "for it; here on that one, which is loopback for a run on one machine",
    canary="test_torchs_store_still_listens_on_every_interface",
)
def listen_where_expected(module: ModuleType) -> None:
    store = module.TCPStore

    @functools.wraps(store)
    def listening_store(host_name: str, port: int, *args, is_master: bool = False, **kwargs):
        listener = _listener(host_name, port) if is_master and port else None
        if listener is not None:
            kwargs["master_listen_fd"] = listener.detach()  # the store closes it
        return store(host_name, port, *args, is_master=is_master, **kwargs)

    replace(module, "TCPStore", listening_store)


def _listener(host: str, port: int) -> socket.socket | None:
    """A socket that listens at the address, or None if somebody does: with `multi_tenant` torch shares its own."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return listener
