"""Messages between the pool and its processes: a length, then JSON. Never pickle: reading a message runs nothing."""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

_HEADER = struct.Struct("!I")
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class ClosedError(ConnectionError):
    """The other side is gone."""


def send(sock: socket.socket, message: dict[str, Any], deadline: float | None = None) -> None:
    """Send one message. `deadline` is a time.monotonic() value; raises TimeoutError when it passes."""
    body = json.dumps(message).encode("ascii")
    _set_deadline(sock, deadline)
    try:
        sock.sendall(_HEADER.pack(len(body)) + body)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ClosedError(str(error)) from error


def receive(sock: socket.socket, deadline: float | None = None) -> dict[str, Any]:
    """Receive one message.

    Raises TimeoutError at the deadline, ClosedError when the other side is gone, ValueError when it sent no message.
    """
    (size,) = _HEADER.unpack(_receive_exactly(sock, _HEADER.size, deadline))
    if size > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {size} bytes, above the limit of {MAX_MESSAGE_BYTES}")
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
