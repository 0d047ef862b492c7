"""`--max-restarts N`: train in a child process, and start it again when it dies.

The child runs the plain training command. It resumes from the last checkpoint that it or an earlier child has saved. If
there is none, it starts the way its command says.
"""

import signal
import subprocess
import sys
from pathlib import Path

from . import disk, stopping
from .checkpoints import TRACKER

OPTION = "--max-restarts"

# No restart after these: finished, rejected by the checks, stopped on request, disk full, Ctrl-C and SIGTERM.
_FINAL = {0, 2, stopping.EXIT_STATUS, disk.EXIT_STATUS}
_FINAL |= {128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}
_FORWARDED = (signal.SIGTERM, signal.SIGUSR1)


def take_option(arguments: list[str]) -> tuple[int, list[str]]:
    """Take `--max-restarts N` or `--max-restarts=N` out of the command line.

    Returns:
        (N, or 0 without the option; the other arguments).

    Raises:
        ValueError: N is missing or is not a whole number.
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
            raise ValueError(f"{OPTION} needs a whole number (0 or more), not {value!r}")
        return int(value), rest
    return 0, rest


def supervise(command: list[str], run: Path, max_restarts: int) -> int:
    """Run `command`, and run it again after each death.

    Args:
        command: the training command, which resumes with `trainer.resume_mode=auto`.
        run: the run's folder, which holds its checkpoints.
        max_restarts: number of restarts after which a death is final.

    Returns:
        The last exit status; 128 + N if signal N ended the command.
    """
    child: subprocess.Popen | None = None

    def forward(signum, frame):
        if child is not None:
            child.send_signal(signum)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal sends it to the child too, which shuts down
    before = _tracked(run)
    for restart in range(max_restarts + 1):
        resumes = _tracked(run) != before  # but not from a checkpoint of an earlier run
        child = subprocess.Popen([*command, "trainer.resume_mode=auto"] if resumes else command)
        status = child.wait()
        if status in _FINAL or restart == max_restarts:
            return status if status >= 0 else 128 - status
        print(f"training died with status {status}; restart {restart + 1} of {max_restarts}", file=sys.stderr)
    raise AssertionError("unreachable")


def _tracked(run: Path) -> tuple[str, int] | None:
    tracker = run / TRACKER
    return (tracker.read_text(), tracker.stat().st_mtime_ns) if tracker.exists() else None
