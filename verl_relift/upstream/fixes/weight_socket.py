"""The socket over which a training worker hands weights to the vLLM worker beside it.

verl names it `/tmp/rl-colocate-zmq-JOB-replica-R-rank-N.sock`, and both sides unpickle what they get. The first job of
every Ray cluster has the same number. So two runs on a host take each other's weights, and another user who binds the
name first runs code as the run's owner.

Here `JOB` is a folder of a random name that only the owner can open, and the messages are JSON. The name comes from the
secret of the run, which both sides have.
"""

import base64
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
import torch
import zmq
from torch.multiprocessing.reductions import rebuild_cuda_tensor

from ...run import private
from ..registry import Where, patch, replace
from ..view import View
from .run_secret import derive

PREFIX = "rl-colocate-zmq-"  # verl's, on both sides
_HANDLE = f"ipc://{private.PARENT}/{PREFIX}"


def folder() -> Path:
    """Make the folder of the run's sockets on this node, and hold it as long as this process lives."""
    job = ray.get_runtime_context().get_job_id()
    return private.hold(private.PARENT / f"{PREFIX}{derive(f'weights of job {job}', 16).hex()}")


def private_job_id() -> str:
    """What stands for the Ray job id in the socket's name: the rest of the folder's name, and the start of a file's."""
    return f"{folder().name.removeprefix(PREFIX)}/weights"


def in_private_folder(handle: str) -> str:
    """A socket's name as verl's rollout adapter makes it, with `private_job_id` in place of the job id.

    Raises:
        ValueError: if it is of another form.
    """
    job = ray.get_runtime_context().get_job_id()
    start, found, rest = handle.partition(f"{_HANDLE}{job}-")
    if start or not found:
        raise ValueError(f"{handle}: expected a name of the weights' socket that begins with {_HANDLE}{job}-")
    return f"{_HANDLE}{private_job_id()}-{rest}"


@patch(
    where=Where.EVERYWHERE,
    replaces=("verl.workers.rollout.vllm_rollout.bucketed_weight_transfer:zmq",),
    versions=("verl",),
    upstream="both sides of the weights' socket unpickle what they get, from whoever has the socket; here they "
    "exchange JSON, in a folder that only this user can open",
    canary="test_verl_still_unpickles_what_comes_from_the_weights_socket",
    issue="verl-project/verl#6233",
)
def speak_json(module: ModuleType) -> None:
    replace(module, "zmq", View(module.zmq, Context=WeightContext))


class WeightSocket(zmq.Socket):
    """A socket in a private folder, to processes of this user, that speaks JSON where verl means pickle.

    Attributes:
        last_received: the last message, as it came.
    """

    last_received = b""

    def bind(self, address: str) -> Any:
        """As ZeroMQ's.

        Raises:
            NotPrivate: others can open the folder.
        """
        private.check(Path(address.removeprefix("ipc://")).parent)
        self.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        return super().bind(address)

    def connect(self, address: str) -> Any:
        """As ZeroMQ's.

        Raises:
            NotPrivate: others can open the folder.
        """
        private.check(Path(address.removeprefix("ipc://")).parent)
        return super().connect(address)

    def recv(self, *args: Any, **kwargs: Any) -> Any:
        """As ZeroMQ's."""
        self.last_received = super().recv(*args, **kwargs)
        return self.last_received

    def send_pyobj(self, obj: Any, flags: int = 0, **_: Any) -> Any:
        """Send one of the messages that `encode` knows."""
        return self.send(encode(obj), flags)

    def recv_pyobj(self, flags: int = 0) -> Any:
        """Receive one of the messages that `decode` knows."""
        return decode(self.recv(flags))


class WeightContext(zmq.Context):
    """The context of a process's `WeightSocket`s."""

    _instance = None  # not ZeroMQ's own
    _socket_class = WeightSocket


# ---- messages --------------------------------------------------------------------------------------------------------
# A segment of shared memory {name, size}, a handle of a device's memory (function, arguments), or a bucket: {is_last,
# bucket_meta: by the tensor's name {name, shape, dtype, offset, handle or None}}.


def encode(message: Any) -> bytes:
    """Return a message of verl's weight transfer as JSON.

    Raises:
        TypeError: if it is none of verl's.
    """
    if isinstance(message, tuple):
        return json.dumps({"handle": _handle_as_json(message)}).encode()
    if "bucket_meta" not in message:
        return json.dumps({"name": message["name"], "size": message["size"]}).encode()
    tensors = [
        [t["name"], t["shape"], _name(t["dtype"]), t["offset"], t["handle"] and _handle_as_json(t["handle"])]
        for t in message["bucket_meta"].values()
    ]
    return json.dumps({"tensors": tensors, "is_last": message["is_last"]}).encode()


def decode(data: bytes) -> Any:
    """Return the message that `encode` was given.

    Raises:
        ValueError: if it is no message of `encode`.
    """
    try:
        message = json.loads(data)
        if "handle" in message:
            return _handle(message["handle"])
        if "tensors" not in message:
            return {"name": str(message["name"]), "size": int(message["size"])}
        tensors = {
            name: {
                "name": name,
                "shape": torch.Size(shape),
                "dtype": _dtype(dtype),
                "offset": int(offset),
                "handle": handle and _handle(handle),
            }
            for name, shape, dtype, offset, handle in message["tensors"]
        }
        return {"bucket_meta": tensors, "is_last": bool(message["is_last"])}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"not a message about weights: {type(error).__name__}: {error}") from error


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name} is no dtype")
    return dtype


def _handle_as_json(handle: tuple) -> list:
    """The arguments of torch's `rebuild_cuda_tensor`, without the two classes, which are always the same."""
    function, arguments = handle
    if function is not rebuild_cuda_tensor:
        raise TypeError(f"weights of a device other than CUDA: {function.__name__}")
    _, size, stride, offset, _, dtype, device, *rest = arguments
    rest = [{"bytes": base64.b64encode(one).decode()} if isinstance(one, bytes) else one for one in rest]
    return [list(size), list(stride), offset, _name(dtype), device, *rest]


def _handle(values: list) -> tuple:
    size, stride, offset, dtype, device, *rest = values
    rest = [base64.b64decode(one["bytes"]) if isinstance(one, dict) else one for one in rest]
    arguments = (torch.Size(size), tuple(stride), offset, torch.storage.TypedStorage, _dtype(dtype), device)
    return rebuild_cuda_tensor, (torch.Tensor, *arguments, *rest)
