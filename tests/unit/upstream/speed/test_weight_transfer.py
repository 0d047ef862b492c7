"""Weights through a connection and a segment that stay: what is sent arrives, and nothing is left behind."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import verl  # noqa: F401  loads the platform plugin
import zmq
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver, BucketedWeightSender

from verl_relift.upstream.speed import weight_transfer as verl_weights

pytestmark = pytest.mark.timeout(120)  # a lost message would be waited for

RECEIVER = """
import json, sys
import torch, verl
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl_relift.upstream.speed import weight_transfer as verl_weights

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
    print("ANSWER", json.dumps({"sums": sums, "segment": verl_weights._segments[handle].name}), flush=True)
"""


class Receiver:
    """A process that takes weights whenever it is told a socket's name."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", RECEIVER],
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
    for socket in verl_weights._sockets.values():
        socket.close(linger=0)
    verl_weights._sockets.clear()
    verl_weights._segments.clear()


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
        sockets.append(verl_weights._sockets[handle])
        # No name that a killed run would leave.
        assert linked() <= before
        assert not os.path.exists(handle.removeprefix("ipc://"))
    assert segments == [verl_weights._segments[handle].name] * 3
    assert sockets[0] is sockets[1] is sockets[2]


def test_a_receiver_in_place_of_one_that_ended_is_met_anew(receiver, handle):
    first = Receiver()
    first.take(handle)
    send(handle, 1)
    name = first.answer()["segment"]
    _, errors = first.process.communicate(timeout=60)
    assert first.process.returncode == 0 and "leaked" not in errors, errors
    receiver.take(handle)
    sent = send(handle, 2)
    answer = receiver.answer()
    assert answer["sums"] == sent and answer["segment"] != name


def test_a_sender_in_place_of_one_that_ended_is_met_anew(receiver, handle):
    """As in a new process: nothing is kept, and the socket's file is another."""
    for seed in (1, 2):
        receiver.take(handle)
        sent = send(handle, seed)
        assert receiver.answer()["sums"] == sent
        verl_weights._sockets.pop(handle).close(linger=0)
        verl_weights._segments.clear()


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
    assert handle not in verl_weights._sockets


def test_after_an_update_that_the_receiver_breaks_off_the_next_one_is_whole(receiver, handle):
    context = zmq.Context.instance()
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
        assert verl_weights._segments[handle].size == megabytes << 20


def test_tensors_of_a_device_are_shared_as_verl_does():
    """Only shared memory is ours: with IPC handles verl's own functions are called."""
    assert BucketedWeightSender._init_buffer.__wrapped__.__module__ == BucketedWeightSender.__module__
    assert BucketedWeightReceiver._init_buffer.__wrapped__.__module__ == BucketedWeightReceiver.__module__
