"""verl's transfer of weights to vLLM, over what the first update set up.

* The two processes meet at a socket of the sender's. verl binds it for every update, and where the receiver comes
  first, ZeroMQ looks for it again after a tenth of a second or two, which is longer than the transfer of a small
  model. Here the connection of the first update stays. Looking more often instead is not safe: the receiver's socket
  of the update before, while ZeroMQ still closes it, can then connect too, and the sender's first message goes there
  and is lost.
* Without IPC handles of a device, the weights go through shared memory. verl makes a new segment for every update,
  whose pages the kernel fills with zeros, one fault each, before the weights overwrite them; here both sides keep the
  segment as long as the connection.

What both sides have has no name: verl removes the socket's file, and the segment's goes as soon as it is open on both
sides. So both end with the two processes, however they end, and a connection is one of exactly two processes: where
one of them is replaced, the next update binds a new socket and makes a new segment.

A sender and a receiver of which only one is patched work together, too: the messages are verl's, except that a receiver
says with its last one that it keeps the connection. For one that does not say so, the sender binds again. Whether its
socket is connected does not tell: that looks so until ZeroMQ has closed it. The two run on one host and inherit one
environment, so that is not expected to happen.
"""

import functools
import uuid
from multiprocessing import resource_tracker, shared_memory
from types import ModuleType

import torch
import zmq

from ..registry import Where, patch, replace

_KEPT = b"kept"  # the receiver's last message; verl's is empty, and no sender of verl's looks into it

# By verl's name of the socket: each pair of processes has its own.
_sockets: dict[str, zmq.Socket] = {}  # without the one of an update that is under way
_segments: dict[str, shared_memory.SharedMemory] = {}


@patch(
    where=Where.EVERYWHERE,
    replaces=tuple(
        f"verl.workers.rollout.vllm_rollout.bucketed_weight_transfer:{attribute}"
        for attribute in (
            *("BucketedWeightSender._init_socket", "BucketedWeightSender._init_buffer"),
            *("BucketedWeightSender._cleanup", "BucketedWeightSender.async_send_weights"),
            *("BucketedWeightReceiver._init_socket", "BucketedWeightReceiver._init_buffer"),
            *("BucketedWeightReceiver._cleanup", "BucketedWeightReceiver.receive_weights"),
        )
    ),
    versions=("verl",),
    upstream="for each update of the weights binds a new socket, for which the receiver looks every 100 to 200 ms, and "
    "makes a new segment of shared memory, whose pages the kernel fills with zeros; here the first ones stay",
    canary="test_verl_still_connects_for_every_update",
)
def keep_connections(module: ModuleType) -> None:
    sender, receiver = module.BucketedWeightSender, module.BucketedWeightReceiver
    replace(sender, "_init_socket", _bind_once(sender._init_socket))
    replace(sender, "_init_buffer", _share_segment(sender._init_buffer))
    replace(sender, "_cleanup", _without_socket(sender._cleanup))
    replace(sender, "async_send_weights", _keep_after_sending(sender.async_send_weights))
    replace(receiver, "_init_socket", _connect_once(receiver._init_socket))
    replace(receiver, "_init_buffer", _take_segment(receiver._init_buffer))
    replace(receiver, "_cleanup", _without_socket(receiver._cleanup))
    replace(receiver, "receive_weights", _keep_after_receiving(receiver.receive_weights))


# Sockets. verl's `_cleanup`, which runs at the end of an update however that comes, closes the socket; these put it
# aside before, and keep it only where the update was whole. Half of one leaves the two sides at different messages.


def _bind_once(bind):
    @functools.wraps(bind)
    def init(self) -> None:
        self.socket = _sockets.pop(self.zmq_handle, None)
        if self.socket is not None and not self.socket.poll(0, zmq.POLLOUT):
            _close(self.socket)  # the receiver has ended
            self.socket = None
        if self.socket is None:
            _segments.pop(self.zmq_handle, None)
            bind(self)

    return init


def _connect_once(connect):
    @functools.wraps(connect)
    def init(self) -> None:
        self.socket = _sockets.pop(self.zmq_handle, None)
        if self.socket is None:
            connect(self)

    return init


def _without_socket(cleanup):
    @functools.wraps(cleanup)
    def clean(self) -> None:
        self.put_aside, self.socket = self.socket, None
        cleanup(self)

    return clean


def _keep_after_sending(send_weights):
    @functools.wraps(send_weights)
    async def send(self, weights) -> None:
        try:
            await send_weights(self, weights)
        except BaseException:
            _close(self.put_aside)
            raise
        if self.put_aside.last_received == _KEPT:
            _sockets[self.zmq_handle] = self.put_aside
        else:
            _close(self.put_aside)
            _segments.pop(self.zmq_handle, None)

    return send


def _keep_after_receiving(receive_weights):
    @functools.wraps(receive_weights)
    def receive(self, on_bucket_received) -> None:
        try:
            receive_weights(self, on_bucket_received)
        except BaseException:
            _close(self.put_aside)
            raise
        # As verl's `_cleanup` does last: the sender continues once it has this.
        self.put_aside.send(_KEPT)
        _sockets[self.zmq_handle] = self.put_aside

    return receive


def _close(socket: zmq.Socket | None) -> None:
    if socket is not None:
        socket.close(linger=0)


# Segments. These leave `shm` of verl's objects empty: what is there, `_cleanup` closes and unlinks.


def _share_segment(share_on_device):
    @functools.wraps(share_on_device)
    def share(self) -> None:
        if not self.use_shm:
            return share_on_device(self)
        segment = _segments.get(self.zmq_handle)
        if segment is not None and segment.size >= self.bucket_size:
            _offer(self.socket, segment)
        else:
            name = f"verl_weights_{uuid.uuid4().hex}"
            segment = shared_memory.SharedMemory(name=name, create=True, size=self.bucket_size)
            try:
                _offer(self.socket, segment)
            finally:
                segment.unlink()
            _segments[self.zmq_handle] = segment
        self.buffer = torch.frombuffer(segment.buf, dtype=torch.uint8)[: self.bucket_size]

    return share


def _offer(socket: zmq.Socket, segment: shared_memory.SharedMemory) -> None:
    socket.send_pyobj({"name": segment.name, "size": segment.size})
    socket.recv()


def _take_segment(take_on_device):
    @functools.wraps(take_on_device)
    def take(self) -> None:
        if not self.use_shm:
            return take_on_device(self)
        name = self.socket.recv_pyobj()["name"]
        segment = _segments.get(self.zmq_handle)
        if segment is None or segment.name != name:
            segment = shared_memory.SharedMemory(name=name)
            # It is the sender's to remove; Python's tracker would do it again, with a warning, when this process ends.
            resource_tracker.unregister(segment._name, "shared_memory")
            _segments[self.zmq_handle] = segment
        self.buffer = torch.frombuffer(segment.buf, dtype=torch.uint8)
        self.socket.send(b"")

    return take
