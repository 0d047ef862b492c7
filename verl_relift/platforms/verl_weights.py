"""verl's transfer of weights to vLLM without what it waits for in every update.

* The two processes meet at a socket that the sender binds. Where the receiver comes first, ZeroMQ looks for it again
  after a tenth of a second or two, which is longer than the transfer of a small model; here after a millisecond.
* Without IPC handles of a device, the weights go through shared memory. verl makes a new segment for every update,
  whose pages the kernel fills with zeros, one fault each, before the weights overwrite them; here both sides keep the
  segment of the first update. Its name is removed as soon as both have it, so that it ends with the two processes
  however they end.
* verl fills a bucket, and waits while vLLM loads it. Here a part of the bucket is loaded while the next one is filled.
"""

import functools
import uuid
from multiprocessing import resource_tracker, shared_memory
from types import ModuleType

import torch
import zmq

_PARTS = 8  # of a bucket, each handed over once it is full
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
    sender.async_send_weights = _send_in_parts(sender.async_send_weights)
    sender._init_buffer = _share_segment(sender._init_buffer)
    receiver._init_buffer = _take_segment(receiver._init_buffer)
    receiver._init_socket = _connect_soon


def _connect_soon(self) -> None:
    self.socket = self.zmq_context.socket(zmq.REP)
    self.socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MILLISECONDS)
    self.socket.connect(self.zmq_handle)


def _send_in_parts(send_on_device):
    @functools.wraps(send_on_device)
    async def send(self, weights) -> None:
        if not self.use_shm:
            return await send_on_device(self, weights)
        from verl.workers.rollout.utils import ensure_async_iterator

        try:
            self._init_socket()
            self._init_buffer()
            bucket = _Bucket(self)
            async for name, weight in ensure_async_iterator(weights):
                bucket.add(name, weight)
            bucket.hand_over(last=True)
            bucket.wait_until_loaded()
        finally:
            self._cleanup()

    return send


class _Bucket:
    """Fills the segment from its beginning to its end, and from its beginning again.

    The receiver answers when it has loaded a part; one part at most waits for its answer.
    """

    def __init__(self, sender):
        self._socket, self._buffer, self._size = sender.socket, sender.buffer, sender.bucket_size
        self._part: dict[str, dict] = {}  # what verl's receiver needs to know of each weight
        self._begin = self._end = 0  # bytes of the part that is being filled
        self._unanswered = False

    def add(self, name: str, weight: torch.Tensor) -> None:
        if weight.nbytes > self._size:
            raise ValueError(
                f"{name} has {weight.nbytes} bytes, more than a bucket of weights; set "
                f"actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes to "
                f"{-(-weight.nbytes >> 20)} or more"
            )
        begin = -(-self._end // weight.element_size()) * weight.element_size()  # aligned for a view of its type
        if begin + weight.nbytes > self._size:
            if self._part:
                self.hand_over()
            self.wait_until_loaded()  # also what lies at the beginning
            begin = self._begin = 0
        self._end = begin + weight.nbytes
        self._buffer[begin : self._end].view(weight.dtype).view(weight.shape).copy_(weight)
        self._part[name] = {
            "name": name,
            "shape": weight.shape,
            "dtype": weight.dtype,
            "offset": begin,
            "handle": None,
        }
        if self._end - self._begin >= self._size // _PARTS:
            self.hand_over()

    def hand_over(self, last: bool = False) -> None:
        self.wait_until_loaded()
        self._socket.send_pyobj({"bucket_meta": self._part, "is_last": last})
        self._unanswered, self._part, self._begin = True, {}, self._end

    def wait_until_loaded(self) -> None:
        if self._unanswered:
            self._socket.recv()
            self._unanswered = False


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
