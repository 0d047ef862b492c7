"""A chat-completions server on loopback; the test writes every reply, down to the bytes."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Request:
    """A request as it arrived, and the ways to reply to it."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: dict, number: int):
        self.handler = handler
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.body = body
        self.number = number  # counts the server's requests from 0
        self.question = body["messages"][-1]["content"]

    def answer(self, text: str, finish_reason="stop", prompt_tokens=10, completion_tokens=20, **message) -> None:
        """Reply with a valid chat completion."""
        self.json(
            {
                "id": "x",
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text, **message},
                        "finish_reason": finish_reason,
                    }
                ],
                "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
            }
        )

    def json(self, value, status=200, **headers) -> None:
        self.raw(json.dumps(value).encode(), status, **headers)

    def error(self, status: int, message="no", code=None, **headers) -> None:
        self.json({"error": {"message": message, "code": code}}, status, **headers)

    def raw(self, body: bytes, status=200, length: int | None = None, **headers) -> None:
        """Reply with any bytes; if `length` exceeds them, the connection ends before the reply does."""
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", "application/json")
        self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()
        self.handler.wfile.write(body)
        if length is not None:
            self.die()

    def die(self) -> None:
        """End the connection here."""
        self.handler.close_connection = True
        self.handler.wfile.flush()
        self.handler.connection.shutdown(2)


class Server(ThreadingHTTPServer):
    """Calls `respond` for each request, each on its own thread."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, respond: Callable[[Request], None], port: int):
        super().__init__(("127.0.0.1", port), Handler)
        self.respond = respond
        self.lock = threading.Lock()
        self.requests: list[Request] = []
        self.times: list[float] = []
        self.in_flight = self.most_in_flight = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """Ignore clients that hang up, which are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            request = Request(self, body, len(server.requests))
            server.requests.append(request)
            server.times.append(time.monotonic())
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            server.respond(request)
        finally:
            with server.lock:
                server.in_flight -= 1

    def log_message(self, *_):
        pass


@contextmanager
def serving(respond: Callable[[Request], None], port: int = 0):
    """Run a server."""
    server = Server(respond, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
