"""The sides of a comparison as processes that live through it and work only when they are asked.

A request is a line of JSON on stdin, its answer one on a pipe of its own: libraries print to stdout. The worker calls
:func:`serve`, the benchmark holds a :class:`Side`.
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
    """So many ranks of ``python -m MODULE ARGUMENTS``, one thread each.

    Args:
        variables: of the environment, beside those that every side gets.

    Raises:
        RuntimeError: a rank ended instead of answering; its error is on stderr.
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
        return [self._answer(*pair) for pair in zip(self._processes, self._answers, strict=True)]

    def _answer(self, process: subprocess.Popen, answers: IO[str]) -> Any:
        line = answers.readline()
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
        for answers in self._answers:
            answers.close()


def serve(start: Callable[[], Mapping[str, Callable[..., Any]]]) -> None:
    """Answer requests by the functions that ``start`` returns, until stdin ends."""
    functions = start()
    with os.fdopen(int(os.environ[_ANSWERS]), "w") as answers:
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(functions[request.pop("do")](**request)), file=answers, flush=True)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
