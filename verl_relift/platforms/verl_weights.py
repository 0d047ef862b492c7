"""verl's transfer of weights to vLLM without what it waits for in every update.

* The two processes meet at a socket that the sender binds. Where the receiver comes first, ZeroMQ looks for it again
  after a tenth of a second or two, which is longer than the transfer of a small model; here after a millisecond.
* Without IPC handles of a device, the weights go through shared memory. verl makes a new segment for every update,
  whose pages the kernel fills with zeros, one fault each, before the weights overwrite them; here both sides keep the
  segment of the first update. Its name is removed as soon as both have it, so that it ends with the two processes
  however they end.
"""

import functools
import uuid
from multiprocessing import resource_tracker, shared_memory
from types import ModuleType

import torch
import zmq

_RECONNECT_MILLISECONDS = 1
_UNKNOWN = b"unknown segment"  # the receiver's answer, in place of verl's empty one

# Segments by the socket's name: each pair of processes has its own socket.
_kept: dict[str, shared_memory.SharedMemory] = {}


def install_after_import() -> None:
    """Patch the module once this process has it."""
    from .post_import import after_import

    after_import("verl.workers.rollout.vllm_rollout.bucketed_weight_transfer", _install)


def _install(module: ModuleType) -> None:
    sender, receiver = module.BucketedWeightSender, module.BucketedWeightReceiver
    sender._init_buffer = _share_segment(sender._init_buffer)
    receiver._init_buffer = _take_segment(receiver._init_buffer)
    receiver._init_socket = _connect_soon


def _connect_soon(self) -> None:
    self.socket = self.zmq_context.socket(zmq.REP)
    self.socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MILLISECONDS)
    self.socket.connect(self.zmq_handle)


# The two sides below leave `shm` of verl's objects empty: what is there, `_cleanup` closes and unlinks.


def _share_segment(share_on_device):
    @functools.wraps(share_on_device)
    def share(self) -> None:
        if not self.use_shm:
            return share_on_device(self)
        segment = _kept.get(self.zmq_handle)
        if segment is None or segment.size < self.bucket_size or not _known(self, segment):
            segment = _new_segment(self.bucket_size)
            try:
                if not _known(self, segment):
                    raise RuntimeError(f"{self.zmq_handle}: the vLLM worker cannot open a segment of shared memory")
            finally:
                segment.unlink()
        self.buffer = torch.frombuffer(segment.buf, dtype=torch.uint8)[: self.bucket_size]
        _kept[self.zmq_handle] = segment

    return share


def _known(sender, segment: shared_memory.SharedMemory) -> bool:
    sender.socket.send_pyobj({"name": segment.name, "size": segment.size})
    return sender.socket.recv() != _UNKNOWN


def _new_segment(size: int) -> shared_memory.SharedMemory:
    return shared_memory.SharedMemory(name=f"verl_weights_{uuid.uuid4().hex}", create=True, size=size)


def _take_segment(take_on_device):
    @functools.wraps(take_on_device)
    def take(self) -> None:
        if not self.use_shm:
            return take_on_device(self)
        while (segment := _segment(self.zmq_handle, self.socket.recv_pyobj())) is None:
            self.socket.send(_UNKNOWN)
        self.buffer = torch.frombuffer(segment.buf, dtype=torch.uint8)
        self.socket.send(b"")

    return take


def _segment(handle: str, offered: dict) -> shared_memory.SharedMemory | None:
    """The offered segment, if this process has it or can open it."""
    kept = _kept.get(handle)
    if kept is not None and kept.name == offered["name"]:
        return kept
    try:
        segment = shared_memory.SharedMemory(name=offered["name"])
    except FileNotFoundError:
        return None
    # It is the sender's to remove; Python's tracker would do it again, with a warning, when this process ends.
    resource_tracker.unregister(segment._name, "shared_memory")
    _kept[handle] = segment
    return segment
