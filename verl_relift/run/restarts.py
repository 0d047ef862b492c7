"""``--max-restarts N``: train in a child process, and start it again when it dies.

The child is the plain training command. It goes on from the last checkpoint that it, or a child before it, has made;
without one it starts as it was told to.
"""

import signal
import subprocess
import sys
from pathlib import Path

from . import stopping
from .checkpoints import TRACKER

OPTION = "--max-restarts"

# Not deaths: finished, refused by the checks, stopped on request, Ctrl-C and SIGTERM.
_FINAL = {0, 2, stopping.EXIT_STATUS, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}
_FORWARDED = (signal.SIGTERM, signal.SIGUSR1)


def take_option(arguments: list[str]) -> tuple[int, list[str]]:
    """Split ``--max-restarts N`` (or ``--max-restarts=N``) off the command line: (N or 0, the rest).

    Raises:
        ValueError: N is missing or is not a whole number from 0.
    """
    rest = list(arguments)
    for place, argument in enumerate(arguments):
        name, separator, value = argument.partition("=")
        if name != OPTION:
            continue
        del rest[place]
        if not separator:
            value = rest.pop(place) if place < len(rest) else ""
        if not value.isdecimal():
            raise ValueError(f"{OPTION} needs a whole number from 0, not {value!r}")
        return int(value), rest
    return 0, rest


def supervise(command: list[str], run: Path, max_restarts: int) -> int:
    """Run ``command`` and again after each death, at most ``max_restarts`` times; the last exit status.

    Args:
        command: the training command, which resumes with ``trainer.resume_mode=auto``.
        run: the run's folder, where its checkpoints are.
    """
    child: subprocess.Popen | None = None

    def forward(signum, frame):
        if child is not None:
            child.send_signal(signum)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal sends it to the child too, which ends in order
    before = _tracked(run)
    for restart in range(max_restarts + 1):
        resumes = _tracked(run) != before  # not from what an earlier run has left in the folder
        child = subprocess.Popen([*command, "trainer.resume_mode=auto"] if resumes else command)
        status = child.wait()
        if status in _FINAL or restart == max_restarts:
            return status if status >= 0 else 128 - status
        print(f"training died with status {status}; restart {restart + 1} of {max_restarts}", file=sys.stderr)
    raise AssertionError("unreachable")


def _tracked(run: Path) -> tuple[str, int] | None:
    tracker = run / TRACKER
    return (tracker.read_text(), tracker.stat().st_mtime_ns) if tracker.exists() else None
