"""A torch process group's store listens where its processes look for it, and nowhere else."""

import socket
import sys

import psutil
import pytest
import torch.distributed
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS

rendezvous = sys.modules["torch.distributed.rendezvous"]  # torch.distributed has a function of that name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def addresses(port: int) -> set[str]:
    """Where this process listens on the port."""
    found = psutil.Process().net_connections(kind="tcp")
    return {one.laddr.ip for one in found if one.laddr.port == port and one.status == psutil.CONN_LISTEN}


def test_torchs_store_still_listens_on_every_interface():
    """The day this fails, `fixes/torch_store.py` can go."""
    port = free_port()
    store = ORIGINALS["torch.distributed.rendezvous:TCPStore"]("127.0.0.1", port, 1, is_master=True)
    assert addresses(port) & {"::", "0.0.0.0"}
    del store


@pytest.mark.parametrize("init_method", ["env://", "tcp://127.0.0.1:{port}"])
def test_a_process_group_is_found_where_it_is_told(monkeypatch, init_method):
    port = free_port()
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": 0, "WORLD_SIZE": 1}.items():
        monkeypatch.setenv(name, str(value))
    for _ in range(2):  # the second takes the store of the first
        torch.distributed.init_process_group("gloo", init_method.format(port=port), rank=0, world_size=1)
        try:
            assert addresses(port) == {"127.0.0.1"}
            total = torch.ones(3)
            torch.distributed.all_reduce(total)
        finally:
            torch.distributed.destroy_process_group()


def test_a_client_makes_no_store():
    port = free_port()
    server = rendezvous.TCPStore("127.0.0.1", port, 2, is_master=True, wait_for_workers=False)
    client = rendezvous.TCPStore("127.0.0.1", port, 2, is_master=False, wait_for_workers=False)
    client.set("rank", "1")
    assert server.get("rank") == b"1" and addresses(port) == {"127.0.0.1"}


def test_an_address_of_another_host_is_an_error():
    with pytest.raises(OSError, match="assign requested address"):
        rendezvous.TCPStore("192.0.2.77", free_port(), 1, is_master=True)
