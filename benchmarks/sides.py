"""Runs each side of a comparison in processes that live through all turns and work only on request.

A request is a line of JSON on stdin. The answer is a line of JSON on a separate pipe, because libraries print to
stdout. The worker calls `serve`; the benchmark holds a `Side`.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, Any, Self

_ANSWERS = "SIDE_ANSWERS"  # environment variable: the descriptor to answer on
_ENVIRONMENT = {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Side:
    """Runs ranks of `python -m MODULE ARGUMENTS`, one thread each. A context manager; leaving it kills the ranks.

    Args:
        module: the worker's module, which calls `serve`.
        arguments: its command-line arguments.
        ranks: number of processes.
        variables: environment variables in addition to those that every side gets.
    """

    def __init__(self, module: str, *arguments: str, ranks: int = 1, variables: Mapping[str, str] | None = None):
        environment = {
            **os.environ,
            **_ENVIRONMENT,
            **(variables or {}),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "WORLD_SIZE": str(ranks),
        }
        self._name = " ".join([module, *arguments])
        self._processes, self._answers = [], []
        for rank in range(ranks):
            ours, theirs = os.pipe()
            self._answers.append(os.fdopen(ours))
            ranked = {"RANK": str(rank), "LOCAL_RANK": str(rank), _ANSWERS: str(theirs)}
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**environment, **ranked},
                stdin=subprocess.PIPE,
                stdout=sys.stderr,
                pass_fds=[theirs],
                text=True,
            )
            os.close(theirs)
            self._processes.append(process)

    def ask(self, do: str, **arguments: Any) -> list[Any]:
        """Ask every rank at the same time and return their answers.

        Args:
            do: name of the worker's function.
            arguments: its arguments, JSON types.

        Raises:
            RuntimeError: a rank exited instead of answering; its error is on stderr.
        """
        self.send(do, **arguments)
        return self.receive()

    def send(self, do: str, **arguments: Any) -> None:
        """Ask every rank without waiting; `receive` returns the answers."""
        for process in self._processes:
            process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            process.stdin.flush()

    def receive(self) -> list[Any]:
        """Wait for every rank's answer to the oldest open request.

        Raises:
            RuntimeError: a rank exited instead of answering; its error is on stderr.
        """
        return [self._answer(*pair) for pair in zip(self._processes, self._answers, strict=True)]

    def _answer(self, process: subprocess.Popen, answers: IO[str]) -> Any:
        line = answers.readline()
        if not line:
            raise RuntimeError(f"{self._name} exited with status {process.wait()}; its error is above")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for answers in self._answers:
            answers.close()


def serve(start: Callable[[], Mapping[str, Callable[..., Any]]]) -> None:
    """Answer requests until stdin ends.

    Args:
        start: prepares the worker and returns its functions by name.
    """
    functions = start()
    with os.fdopen(int(os.environ[_ANSWERS]), "w") as answers:
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(functions[request.pop("do")](**request)), file=answers, flush=True)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
