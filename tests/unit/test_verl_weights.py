"""Weights through a segment that stays: what arrives is what was sent, and nothing is left behind."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import verl  # noqa: F401  loads the platform plugin
import zmq
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver, BucketedWeightSender

from verl_relift.platforms import verl_weights

RECEIVER = """
import json, sys
import torch, verl
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl_relift.platforms import verl_weights

for line in sys.stdin:
    sums = {}
    receiver = BucketedWeightReceiver(line.strip(), torch.device("cpu"), use_shm=True)
    receiver.receive_weights(lambda weights, last: sums.update({n: t.double().sum().item() for n, t in weights}))
    print("ANSWER", json.dumps({"sums": sums, "segment": verl_weights._kept[line.strip()].name}), flush=True)
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

    def take(self, handle: str) -> None:
        self.process.stdin.write(handle + "\n")
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
    verl_weights._kept.clear()


def send(handle: str, seed: int, megabytes: int = 1) -> dict[str, float]:
    """Send weights that need two buckets of a megabyte; their sums."""
    generator = torch.Generator().manual_seed(seed)
    weights = {f"w{i}": torch.randn(n, generator=generator) for i, n in enumerate((200_000, 100_000, 7))}
    asyncio.run(BucketedWeightSender(handle, megabytes, use_shm=True).async_send_weights(iter(weights.items())))
    return {name: weight.double().sum().item() for name, weight in weights.items()}


def linked() -> set[str]:
    return {file.name for file in Path("/dev/shm").glob("verl_weights_*")}


def test_every_update_arrives_through_the_same_segment(receiver, handle):
    before, segments = linked(), []
    for seed in (1, 2, 3):
        receiver.take(handle)
        sent = send(handle, seed)
        answer = receiver.answer()
        assert answer["sums"] == sent
        segments.append(answer["segment"])
        assert linked() <= before  # no name that a killed run would leave
    assert segments == [verl_weights._kept[handle].name] * 3


def test_a_receiver_in_place_of_one_that_ended_gets_a_segment(receiver, handle):
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


def test_larger_buckets_get_a_larger_segment(receiver, handle):
    for megabytes in (1, 2):
        receiver.take(handle)
        sent = send(handle, megabytes, megabytes)
        assert receiver.answer()["sums"] == sent
        assert verl_weights._kept[handle].size == megabytes << 20


def test_a_receiver_that_comes_first_looks_again_soon(handle):
    receiver = BucketedWeightReceiver(handle, torch.device("cpu"), use_shm=True)
    receiver._init_socket()
    try:
        assert receiver.socket.getsockopt(zmq.RECONNECT_IVL) == 1
    finally:
        receiver.socket.close()


def test_tensors_of_a_device_are_shared_as_verl_does():
    """Only shared memory is ours: with IPC handles verl's own functions are called."""
    assert BucketedWeightSender._init_buffer.__wrapped__.__module__ == BucketedWeightSender.__module__
    assert BucketedWeightReceiver._init_buffer.__wrapped__.__module__ == BucketedWeightReceiver.__module__
