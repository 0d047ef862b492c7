"""Weights through a connection and a segment that stay: what is sent arrives, and nothing is left behind."""

import asyncio
import inspect
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
import verl  # noqa: F401  loads the plugin
import zmq
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver, BucketedWeightSender

from verl_relift.upstream.fixes.weight_socket import WeightContext
from verl_relift.upstream.registry import ORIGINALS
from verl_relift.upstream.speed import weight_transfer

MODULE = "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"
pytestmark = pytest.mark.timeout(120)  # a lost message would be waited for

RECEIVER = """
import json, os, sys, threading, time
import torch, verl
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl_relift.upstream.fixes.weight_socket import WeightSocket
from verl_relift.upstream.speed import weight_transfer

if "CLOSES_LATE" in os.environ:  # as ZeroMQ may, whose thread closes a connection when it gets to it
    close, connect = WeightSocket.close, WeightSocket.connect

    def connect_to_what_listens(socket, address):
        while not os.path.exists(address.removeprefix("ipc://")):
            time.sleep(0.001)
        socket.reconnect_ivl = 5000  # a socket that is about to be closed must not find the sender's next one
        connect(socket, address)

    WeightSocket.close = lambda socket, linger=None: threading.Timer(2.0, close, (socket,)).start()
    WeightSocket.connect = connect_to_what_listens

for line in sys.stdin:
    handle, fails = json.loads(line)
    sums = {}

    def load(weights, last):
        if fails:
            raise ValueError("a weight that does not fit")
        sums.update({n: t.double().sum().item() for n, t in weights})

    receiver = BucketedWeightReceiver(handle, torch.device("cpu"), use_shm=True)
    try:
        receiver.receive_weights(load)
    except ValueError:
        pass
    segment = weight_transfer._segments[handle].name if weight_transfer._segments else None
    print("ANSWER", json.dumps({"sums": sums, "segment": segment}), flush=True)
"""


class Receiver:
    """A process that takes weights whenever it is told a socket's name."""

    def __init__(self, **environment: str):
        self.process = subprocess.Popen(
            [sys.executable, "-c", RECEIVER],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def take(self, handle: str, fails: bool = False) -> None:
        self.process.stdin.write(json.dumps([handle, fails]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise AssertionError(self.process.stderr.read())


@pytest.fixture(scope="module")
def receiver():
    started = Receiver()
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.fixture
def handle(tmp_path):
    yield f"ipc://{tmp_path}/w.sock"
    for socket in weight_transfer._sockets.values():
        socket.close(linger=0)
    weight_transfer._sockets.clear()
    weight_transfer._segments.clear()


def send(handle: str, seed: int, megabytes: int = 1) -> dict[str, float]:
    """Send weights that need two buckets of a megabyte; their sums."""
    generator = torch.Generator().manual_seed(seed)
    weights = {f"w{i}": torch.randn(n, generator=generator) for i, n in enumerate((200_000, 100_000, 7))}
    asyncio.run(BucketedWeightSender(handle, megabytes, use_shm=True).async_send_weights(iter(weights.items())))
    return {name: weight.double().sum().item() for name, weight in weights.items()}


def linked() -> set[str]:
    return {file.name for file in Path("/dev/shm").glob("verl_weights_*")}


def test_every_update_arrives_through_the_same_connection_and_segment(receiver, handle):
    before, segments, sockets = linked(), [], []
    for seed in (1, 2, 3):
        receiver.take(handle)
        sent = send(handle, seed)
        answer = receiver.answer()
        assert answer["sums"] == sent
        segments.append(answer["segment"])
        sockets.append(weight_transfer._sockets[handle])
        # No name that a killed run would leave.
        assert linked() <= before
        assert not os.path.exists(handle.removeprefix("ipc://"))
    assert segments == [weight_transfer._segments[handle].name] * 3
    assert sockets[0] is sockets[1] is sockets[2]


def test_a_receiver_in_place_of_one_that_ended_gets_a_connection(receiver, handle):
    first = Receiver()
    first.take(handle)
    send(handle, 1)
    name = first.answer()["segment"]
    _, errors = first.process.communicate(timeout=60)
    assert first.process.returncode == 0 and "leaked" not in errors, errors
    while weight_transfer._sockets[handle].poll(0, zmq.POLLOUT):
        time.sleep(0.01)  # until ZeroMQ has heard of it
    receiver.take(handle)
    sent = send(handle, 2)
    answer = receiver.answer()
    assert answer["sums"] == sent and answer["segment"] != name


def test_a_sender_in_place_of_one_that_ended_makes_a_connection(receiver, handle):
    """As in a new process: nothing is kept, and the socket's file is another."""
    for seed in (1, 2):
        receiver.take(handle)
        sent = send(handle, seed)
        assert receiver.answer()["sums"] == sent
        weight_transfer._sockets.pop(handle).close(linger=0)
        weight_transfer._segments.clear()


def test_nothing_is_kept_of_an_update_that_the_sender_breaks_off(handle):
    def weights():
        yield "w", torch.ones(3)
        raise RuntimeError("no more weights")

    receiver = Receiver()
    receiver.take(handle)
    with pytest.raises(RuntimeError, match="no more weights"):
        asyncio.run(BucketedWeightSender(handle, 1, use_shm=True).async_send_weights(weights()))
    receiver.process.kill()  # it waits for the rest
    receiver.process.communicate()
    assert handle not in weight_transfer._sockets


def test_after_an_update_that_the_receiver_breaks_off_the_next_one_is_whole(receiver, handle):
    context = WeightContext.instance()
    context.setsockopt(zmq.RCVTIMEO, 5000)
    try:
        receiver.take(handle, fails=True)
        with pytest.raises(zmq.Again):
            send(handle, 1)
    finally:
        del context.sockopts[zmq.RCVTIMEO]
    assert receiver.answer()["sums"] == {}
    receiver.take(handle)
    sent = send(handle, 2)
    assert receiver.answer()["sums"] == sent


def test_larger_buckets_get_a_larger_segment(receiver, handle):
    for megabytes in (1, 2):
        receiver.take(handle)
        sent = send(handle, megabytes, megabytes)
        assert receiver.answer()["sums"] == sent
        assert weight_transfer._segments[handle].size == megabytes << 20


def test_tensors_of_a_device_are_shared_as_verl_does():
    """Only shared memory is ours: with IPC handles verl's own functions are called."""
    assert BucketedWeightSender._init_buffer.__wrapped__.__module__ == BucketedWeightSender.__module__
    assert BucketedWeightReceiver._init_buffer.__wrapped__.__module__ == BucketedWeightReceiver.__module__


@contextmanager
def upstreams_sender():
    """verl's own sender, as in a process whose speed patches are off."""
    with ExitStack() as stack:
        for target, original in ORIGINALS.items():
            name = target.partition(":BucketedWeightSender.")[2]
            if name:
                stack.enter_context(mock.patch.object(BucketedWeightSender, name, original))
        yield


@pytest.fixture(scope="module")
def upstreams_receiver():
    started = Receiver(VERL_RELIFT_SPEED_PATCHES="0")
    yield started
    started.process.kill()
    started.process.communicate()


def updates(receiver: Receiver, handle: str) -> list[str | None]:
    segments = []
    for seed in (1, 2, 3):
        receiver.take(handle)
        sent = send(handle, seed)
        answer = receiver.answer()
        assert answer["sums"] == sent
        segments.append(answer["segment"])
    return segments


def test_verl_still_connects_for_every_update(upstreams_receiver, handle):
    """The day this fails, `keep_connections` can go. Without the patches the same weights arrive."""
    names = []
    attach = BucketedWeightSender._init_socket
    with upstreams_sender():
        bind = BucketedWeightSender._init_socket
        assert bind is attach.__wrapped__
        with mock.patch.object(BucketedWeightSender, "_init_socket", lambda self: names.append(1) or bind(self)):
            assert updates(upstreams_receiver, handle) == [None] * 3
    source = inspect.getsource(bind) + inspect.getsource(ORIGINALS[f"{MODULE}:BucketedWeightSender._init_buffer"])
    assert len(names) == 3 and "self.socket.bind(" in source and "create_shared_memory(" in source
    assert not weight_transfer._sockets and not linked()


def test_a_patched_sender_works_with_upstreams_receiver(upstreams_receiver, handle):
    assert updates(upstreams_receiver, handle) == [None] * 3


def test_a_connection_is_not_used_again_that_only_looks_open(handle):
    receiver = Receiver(VERL_RELIFT_SPEED_PATCHES="0", CLOSES_LATE="1")
    try:
        assert updates(receiver, handle) == [None] * 3
        assert not weight_transfer._sockets
    finally:
        receiver.process.kill()
        receiver.process.communicate()


def test_upstreams_sender_works_with_a_patched_receiver(receiver, handle):
    with upstreams_sender():
        assert len(set(updates(receiver, handle))) == 3
