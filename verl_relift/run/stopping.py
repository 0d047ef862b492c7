"""A request to stop between two steps: SIGUSR1, which a scheduler can send before a time limit.

The running step is finished, a checkpoint is saved and the command ends with :data:`EXIT_STATUS`; given again, it goes
on. (Ctrl-C and SIGTERM end a run at once; it goes on from the last regular checkpoint.)
"""

import os
import signal

# sysexits.h: a temporary condition, try again later
EXIT_STATUS = os.EX_TEMPFAIL

_requested = False


class Stopped(Exception):
    """The run ended on request, with steps left. The message says where it goes on."""


def listen() -> None:
    """Take SIGUSR1 as a request from here on. Call in the main thread; an earlier request is forgotten."""
    global _requested
    _requested = False
    signal.signal(signal.SIGUSR1, _request)


def stop_requested() -> bool:
    """Whether SIGUSR1 has come since :func:`listen`."""
    return _requested


def _request(signum, frame) -> None:
    global _requested
    if not _requested:
        # not print: the signal may have interrupted one
        os.write(2, b"SIGUSR1: stopping after this step, with a checkpoint\n")
    _requested = True
