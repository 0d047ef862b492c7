"""A torch process group's store is where its processes look for it, and nowhere else."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psutil
import pytest
import torch.distributed
import verl  # noqa: F401  loads the plugin

from verl_relift.run import leftovers
from verl_relift.testing.stranger import as_stranger, needs_stranger
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


# ---- in the folder of a run ------------------------------------------------------------------------------------------
GROUP = """
import sys, torch, torch.distributed as dist
from verl_relift.upstream.fixes import torch_store
torch_store.meet_in_private()
rank, port = map(int, sys.argv[1:])
dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
group = dist.new_group([0, 1], backend="gloo")
total = torch.tensor([rank + 1.0])
dist.all_reduce(total, group=group)
told = [None, None]
dist.all_gather_object(told, rank)
print(total.item(), told, flush=True)
dist.barrier()
dist.destroy_process_group()
"""
# What another user does to a store on loopback.
CHANGE = """
store = torch.distributed.TCPStore("127.0.0.1", {port}, is_master=False, timeout=timedelta(seconds=2))
print("was", store.get("rank 0"))
store.set("rank 0", "an address of mine")
"""


@pytest.fixture
def run_folder():
    with leftovers.temporary_files() as folder:
        yield folder


def test_on_one_machine_a_group_meets_in_a_file_of_the_owner(run_folder):
    port = free_port()
    store = rendezvous.TCPStore("127.0.0.1", port, 1, True, timedelta(seconds=9), multi_tenant=True)
    store.set("rank 0", "here")
    (file,) = run_folder.iterdir()
    assert run_folder.stat().st_mode & 0o777 == 0o700 and file.name == f"store-{port}"
    assert store.get("rank 0") == b"here" and addresses(port) == set()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))  # nobody is given the port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    del store
    assert list(run_folder.iterdir()) == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_group_that_died_leaves_nothing_to_the_next(run_folder, host):
    port = free_port()
    (run_folder / f"store-{port}").write_bytes(b"\x07\x00\x00\x00\x00\x00\x00\x00")
    store = rendezvous.TCPStore(host, port, 1, is_master=True)
    assert store.add("count", 1) == 1


def test_who_comes_before_the_master_waits_for_it(run_folder):
    """What it wrote would be gone with the file that the master replaces, and the group would wait forever."""
    port = free_port()
    with ThreadPoolExecutor() as pool:
        early = pool.submit(rendezvous.TCPStore, "127.0.0.1", port, 2, is_master=False)
        time.sleep(0.3)
        assert not early.done() and list(run_folder.iterdir()) == []
        master = rendezvous.TCPStore("127.0.0.1", port, 2, is_master=True)
        early.result(timeout=60).set("rank 1", "there")
    assert master.get("rank 1") == b"there"


def test_processes_of_a_run_form_a_group_and_leave_nothing(run_folder):
    port = free_port()
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen([sys.executable, "-c", GROUP, str(rank), str(port)], stdout=subprocess.PIPE, env=environment)
        for rank in range(2)
    ]
    for process in processes:
        assert process.communicate(timeout=300)[0].decode().splitlines()[-1] == "3.0 [0, 1]"
    assert not list(run_folder.glob("store-*"))


def test_a_port_of_another_machine_or_a_chosen_one_stays_a_port(run_folder):
    server = rendezvous.TCPStore("127.0.0.1", 0, 1, is_master=True)
    assert server.port and list(run_folder.iterdir()) == []
    with pytest.raises(OSError, match="assign requested address"):
        rendezvous.TCPStore("192.0.2.77", free_port(), 1, is_master=True)


@needs_stranger
def test_a_stranger_changes_upstreams_store_and_not_ours(run_folder):
    port = free_port()
    for store, changed in (
        (ORIGINALS["torch.distributed.rendezvous:TCPStore"]("127.0.0.1", port, 1, is_master=True), True),
        (rendezvous.TCPStore("127.0.0.1", free_port(), 1, is_master=True), False),
    ):
        store.set("rank 0", "here")
        told = port if changed else int(next(run_folder.iterdir()).name.removeprefix("store-"))
        said = as_stranger(f"from datetime import timedelta\n{CHANGE.format(port=told)}", "torch.distributed", "torch")
        assert ("was" in said) is changed, said
        assert store.get("rank 0") == (b"an address of mine" if changed else b"here")
        del store
    store = rendezvous.TCPStore("127.0.0.1", free_port(), 1, is_master=True)
    (file,) = run_folder.iterdir()
    assert "PermissionError" in as_stranger(f"open({str(file)!r}, 'ab').write(b'mine')")
    assert "PermissionError" in as_stranger(f"os.listdir({str(run_folder)!r})")
    del store
