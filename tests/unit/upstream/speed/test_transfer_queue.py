"""TransferQueue gives back what was put, with columns packed on their way or not."""

import importlib
from contextlib import ExitStack, contextmanager
from functools import reduce
from unittest import mock

import pytest
import ray
import torch
import transfer_queue as tq
import verl  # noqa: F401  loads the plugin
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from transfer_queue.storage.bootstrap import simple_storage_bootstrap
from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager
from transfer_queue.utils import serial_utils

from verl_relift.upstream.fixes import queue_processes
from verl_relift.upstream.registry import ORIGINALS
from verl_relift.upstream.speed.transfer_queue import PACKS, PackingName, pack, unpack

LENGTHS = [3, 1, 7, 2]


def jagged(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def rows_of(dtype: torch.dtype) -> list[torch.Tensor]:
    return [(torch.arange(n) + 10 * n).to(dtype) for n in LENGTHS]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool, torch.bfloat16])
@pytest.mark.parametrize("make", [jagged, list])
def test_a_column_of_rows_travels_as_one_buffer(make, dtype):
    column = make(rows_of(dtype))
    frames = serial_utils.encode({"column": pack(column)})
    assert len(frames) == 3  # message, values, lengths
    back = unpack(serial_utils.decode(frames)["column"])
    assert [r.tolist() for r in back] == [r.tolist() for r in rows_of(dtype)]
    assert {r.dtype for r in back} == {dtype}


def test_a_jagged_tensor_with_gaps_between_its_rows():
    whole = torch.arange(12.0)
    column = torch.nested.nested_tensor_from_jagged(whole, torch.tensor([0, 4, 8, 12]), torch.tensor([2, 4, 1]))
    assert [row.tolist() for row in unpack(pack(column))] == [[0, 1], [4, 5, 6, 7], [8]]


@pytest.mark.parametrize(
    "column",
    [
        torch.ones(4, 2),  # dense
        jagged([torch.ones(2, 3), torch.ones(4, 3)]),  # rows of two dimensions
        [torch.ones(2), torch.ones(2, dtype=torch.int64)],  # rows of two types
        [torch.ones(2), None],
        ["a", "b"],
        [],
        NonTensorStack("a", "b"),
        {"packed_values": 1},
    ],
)
def test_anything_else_is_left_alone(column):
    assert pack(column) is column
    assert unpack(column) is column


def test_transfer_queue_still_sends_a_frame_a_row():
    """The day this fails, `speed/transfer_queue.py` can go."""
    assert len(serial_utils.encode({"column": jagged(rows_of(torch.int64))})) == 1 + len(LENGTHS)


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@contextmanager
def upstreams(prefix: str):
    """What the patches replaced below `prefix`, as in a process where they are off."""
    with ExitStack() as stack:
        for target, original in ORIGINALS.items():
            if target.startswith(prefix):
                module, _, path = target.partition(":")
                *parents, name = path.split(".")
                owner = reduce(getattr, parents, importlib.import_module(module))
                stack.enter_context(mock.patch.object(owner, name, original))
        yield


@contextmanager
def upstreams_manager():
    descriptor = AsyncSimpleStorageManager.storage_manager_id
    del AsyncSimpleStorageManager.storage_manager_id
    try:
        with upstreams("transfer_queue.storage.managers.simple_storage_manager:"):
            yield
    finally:
        AsyncSimpleStorageManager.storage_manager_id = descriptor


@pytest.fixture(scope="module", params=["one unit", "two units", "unit unpatched", "reader unpatched"])
def queue(cluster, request):
    """A real TransferQueue, with and without the patches on its two sides."""
    with ExitStack() as stack:
        if request.param == "unit unpatched":
            unpatched = ray.remote(num_cpus=1)(queue_processes.StorageUnit)
            stack.enter_context(mock.patch.object(simple_storage_bootstrap, "SimpleStorageUnit", unpatched))
        if request.param == "reader unpatched":
            stack.enter_context(upstreams_manager())
        units = 2 if request.param == "two units" else 1
        storage = {"storage_backend": "SimpleStorage", "SimpleStorage": {"num_data_storage_units": units}}
        tq.init(OmegaConf.create({"backend": storage}))
        yield tq
        tq.close()


def test_what_is_put_is_got(queue):
    fields = TensorDict(
        {
            "ids": jagged(rows_of(torch.int64)),
            "log_probs": jagged(rows_of(torch.float32)),
            "turns": torch.full((4,), 2),
            "uid": NonTensorStack(*"abcd"),
            "info": NonTensorStack(*[{"outcome": "correct", "pair": (1, n)} for n in LENGTHS]),
        },
        batch_size=[4],
    )
    keys = ["k0", "k1", "k2", "k3"]
    queue.kv_batch_put(keys=keys, partition_id="train", fields=fields, tags=[{"n": n} for n in LENGTHS])
    order = [2, 0, 3]
    got = queue.kv_batch_get(keys=[keys[i] for i in order], partition_id="train")
    for name in ("ids", "log_probs"):
        expected = [fields[name].unbind()[i] for i in order]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(got[name].unbind(), expected, strict=True))
        assert got[name].dtype == fields[name].dtype
    assert got["turns"].flatten().tolist() == [2, 2, 2]
    assert list(got["uid"]) == ["c", "a", "d"]
    assert [info["outcome"] for info in got["info"]] == ["correct"] * 3

    more = TensorDict({"advantages": jagged([torch.full((n,), 0.5) for n in LENGTHS])}, batch_size=[4])
    queue.kv_batch_put(keys=keys, partition_id="train", fields=more)
    got = queue.kv_batch_get(keys=keys, partition_id="train", select_fields=["advantages", "ids"])
    assert [len(row) for row in got["advantages"].unbind()] == LENGTHS
    with pytest.raises(ValueError, match="not found"):
        queue.kv_batch_get(keys=["unknown"], partition_id="train")
    queue.kv_clear(keys=keys, partition_id="train")


def test_names_tell_who_packs():
    class Named:
        name = PackingName()

    named = Named()
    named.name = "TQ_STORAGE_1"
    assert named.name == "TQ_STORAGE_1" + PACKS
    named.name = named.name
    assert named.name == "TQ_STORAGE_1" + PACKS
