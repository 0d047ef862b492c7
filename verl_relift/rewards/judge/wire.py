"""Messages between the worker pool and its processes: a length, then JSON.

Pickle is not used, because reading a pickle can run code. Commands to the fork server have a fixed size instead and are
packed by `COMMAND`.
"""

import json
import socket
import struct
import time
from typing import Any

COMMAND = struct.Struct("!cI")  # FORK or KILL, and the worker's number; FORK carries the worker's socket as well
FORK, KILL = b"f", b"k"

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_HEADER = struct.Struct("!I")  # the length of the body in bytes


class ClosedError(ConnectionError):
    """The other side closed the connection or died."""


def send(sock: socket.socket, message: dict[str, Any], deadline: float | None = None) -> None:
    """Send one message.

    Args:
        sock: a connected stream socket.
        message: JSON types only.
        deadline: a `time.monotonic()` value; None waits without a limit.

    Raises:
        TimeoutError: the deadline passed.
        ClosedError: the other side is gone.
    """
    body = json.dumps(message).encode("ascii")
    _set_deadline(sock, deadline)
    try:
        sock.sendall(_HEADER.pack(len(body)) + body)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ClosedError(str(error)) from error


def receive(sock: socket.socket, deadline: float | None = None) -> dict[str, Any]:
    """Receive one message.

    Args:
        sock: a connected stream socket.
        deadline: a `time.monotonic()` value; None waits without a limit.

    Raises:
        TimeoutError: the deadline passed.
        ClosedError: the other side is gone.
        ValueError: the bytes are not a message, or the message exceeds `MAX_MESSAGE_BYTES`.
    """
    (size,) = _HEADER.unpack(_receive_exactly(sock, _HEADER.size, deadline))
    if size > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {size} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")
    message = json.loads(_receive_exactly(sock, size, deadline))
    if not isinstance(message, dict):
        raise ValueError(f"message is a {type(message).__name__}, not an object")
    return message


def _receive_exactly(sock: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        _set_deadline(sock, deadline)
        try:
            part = sock.recv(size - len(parts))
        except ConnectionResetError as error:
            raise ClosedError(str(error)) from error
        if not part:
            raise ClosedError("the other side closed the connection")
        parts += part
    return bytes(parts)


def _set_deadline(sock: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        sock.settimeout(None)
        return
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("deadline passed")
    sock.settimeout(remaining)
