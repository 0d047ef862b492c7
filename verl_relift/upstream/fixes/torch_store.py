"""The store through which the processes of a torch process group find each other."""

import errno
import functools
import ipaddress
import socket
import time
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from ...run import leftovers
from ..registry import Where, patch, replace

# A store in a file needs no port, but its name is one: held here, so that no other group of the run is given it.
_held_ports: dict[int, socket.socket] = {}

# For the master to come, as torch's own store waits for its server.
_LONGEST_WAIT = timedelta(seconds=300)
_POLL_SECONDS = 0.01


@patch(
    where=Where.EVERYWHERE,
    replaces=("torch.distributed.rendezvous:TCPStore",),
    upstream="listens on every interface of the host and lets everybody read and write, though the processes know at "
    "which address they look for each other; here it listens on that one, and where that is loopback, it is a file in "
    "the run's folder, which only the run's user can open",
    canary="test_torchs_store_still_listens_on_every_interface",
)
def meet_in_private(module: ModuleType) -> None:
    store = module.TCPStore

    @functools.wraps(store)
    def private_store(
        host_name: str, port: int, world_size: int | None = None, is_master: bool = False, *args, **kwargs
    ):
        folder = leftovers.folder_of_this_run() if port and _is_loopback(host_name) else None
        if folder is not None:
            return _file_store(module, folder / f"store-{port}", port, world_size, is_master, kwargs.get("timeout"))
        listener = _bound(host_name, port, listens=True) if is_master and port else None
        if listener is not None:
            kwargs["master_listen_fd"] = listener.detach()  # the store closes it
        return store(host_name, port, world_size, is_master, *args, **kwargs)

    replace(module, "TCPStore", private_store)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _file_store(
    module: ModuleType, file: Path, port: int, world_size: int | None, is_master: bool, timeout: timedelta | None
) -> Any:
    if is_master and (held := _bound("127.0.0.1", port, listens=False)) is not None:
        _held_ports[port] = held
        file.unlink(missing_ok=True)  # of a group that had the port before, whose processes were killed
    if not is_master:
        _wait_for(file, timeout or _LONGEST_WAIT)  # what is written before the master comes would go with the old file
    store = module.FileStore(str(file), world_size or -1)
    if timeout is not None:
        store.set_timeout(timeout)
    return store


def _wait_for(file: Path, timeout: timedelta) -> None:
    deadline = time.monotonic() + timeout.total_seconds()
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _bound(host: str, port: int, listens: bool) -> socket.socket | None:
    """A socket at the address, or None if there is one: with `multi_tenant` torch shares its own."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        # Others that set it share a port with a socket that sets it and does not listen.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, listens)
        bound.bind(address)
        if listens:
            bound.listen()
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return bound
