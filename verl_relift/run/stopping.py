"""Stop between two steps on SIGUSR1, which a scheduler can send before a time limit.

The trainer finishes the running step and saves a checkpoint, and the command ends with `EXIT_STATUS`. The same
command resumes the run. (Ctrl-C and SIGTERM end a run immediately; it resumes from the last regular checkpoint.)
"""

import os
import signal

from . import console

# sysexits.h: a temporary condition, try again later
EXIT_STATUS = os.EX_TEMPFAIL

_requested = False


class Stopped(Exception):
    """The run stopped on request with steps left. The message says how to resume it."""


def listen() -> None:
    """Handle SIGUSR1 as a request to stop from now on, and forget an earlier request. Call it in the main thread."""
    global _requested
    _requested = False
    signal.signal(signal.SIGUSR1, _request)


def stop_requested() -> bool:
    """Return whether SIGUSR1 has arrived since `listen`."""
    return _requested


def _request(signum, frame) -> None:
    global _requested
    if not _requested:
        console.say_at_once("SIGUSR1: stopping after this step, with a checkpoint")
    _requested = True
