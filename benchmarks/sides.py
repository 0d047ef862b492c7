"""The sides of a comparison as processes that live through it and work only when they are asked.

A request and its answer are a line of JSON each. The worker calls :func:`serve`, the benchmark holds a :class:`Side`.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

_ENVIRONMENT = {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Side:
    """So many ranks of ``python -m MODULE ARGUMENTS``, one thread each.

    Raises:
        RuntimeError: a rank ended instead of answering; its error is on stderr.
    """

    def __init__(self, module: str, *arguments: str, ranks: int = 1):
        environment = {
            **os.environ,
            **_ENVIRONMENT,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "WORLD_SIZE": str(ranks),
        }
        self._name = " ".join([module, *arguments])
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        ]

    def ask(self, do: str, **arguments: Any) -> list[Any]:
        """The answer of every rank, asked at the same time."""
        self.send(do, **arguments)
        return self.receive()

    def send(self, do: str, **arguments: Any) -> None:
        """Ask every rank; :meth:`receive` waits for the answers."""
        for process in self._processes:
            process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            process.stdin.flush()

    def receive(self) -> list[Any]:
        """The answer of every rank to what was asked first."""
        return [self._answer(process) for process in self._processes]

    def _answer(self, process: subprocess.Popen) -> Any:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with status {process.wait()}; its error is above")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def serve(start: Callable[[], Mapping[str, Callable[..., Any]]]) -> None:
    """Answer requests by the functions that ``start`` returns, until stdin ends. What else prints goes to stderr."""
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)
    functions = start()
    for line in sys.stdin:
        request = json.loads(line)
        answer = functions[request.pop("do")](**request)
        print(json.dumps(answer), file=answers, flush=True)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
