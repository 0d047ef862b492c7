"""The weights' way to vLLM: what verl's sender does with them, without a receiver."""

import asyncio
import inspect
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender

from .memory import Memory

SYNC = "weight sync"


@dataclass
class Sync:
    """What went to vLLM.

    Attributes:
        tensors: number of weights.
        bytes: their size.
        largest: size of the largest of them.
        buckets: number of messages that carry a bucket.
        direct: number of weights that are larger than a bucket and go by themselves.
    """

    tensors: int = 0
    bytes: int = 0
    largest: int = 0
    buckets: int = 0
    direct: int = 0


class _Receiver:
    """In the place of the socket: takes every message."""

    def __init__(self, sync: Sync):
        self._sync = sync

    def send_pyobj(self, message: dict) -> None:
        self._sync.buckets += bool(message["bucket_meta"])

    def recv(self) -> None:
        pass


class _Sender(BucketedWeightSender):
    # verl's own, without the patch that keeps the connection: there is none.
    async_send_weights = inspect.unwrap(BucketedWeightSender.async_send_weights)

    def __init__(self, sync: Sync, bucket_size_mb: int):
        super().__init__("nowhere", bucket_size_mb)
        self._sync = sync

    def _init_socket(self) -> None:
        self.socket = _Receiver(self._sync)

    def _init_buffer(self) -> None:
        self.buffer = torch.empty(self.bucket_size // 2, dtype=torch.bfloat16).view(torch.uint8)

    def _direct_send_large_weight(self, name: str, weight: torch.Tensor) -> None:
        self._sync.direct += 1

    def _cleanup(self) -> None:
        self.buffer = None


def trace_sync(worker, config: DictConfig, memory: Memory) -> Sync:
    """Export the weights, pack them into buckets and count both."""
    sync = Sync()
    sender = _Sender(sync, config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes)
    with memory.phase(SYNC), memory.of("weight-sync buckets"):
        weights, _ = worker.actor.engine.get_per_tensor_param()

        def counted():
            for name, weight in weights:
                sync.tensors += 1
                sync.bytes += weight.nbytes
                sync.largest = max(sync.largest, weight.nbytes)
                yield name, weight

        asyncio.run(sender.async_send_weights(counted()))
    return sync
