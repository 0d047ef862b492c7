"""Stop between two steps on SIGUSR1, which a scheduler can send before a time limit.

The trainer finishes the running step and saves a checkpoint, and the command ends with `EXIT_STATUS`. The same
command resumes the run. Ctrl-C and SIGTERM end a run immediately; it resumes from the last regular checkpoint.
"""

import os
import signal
import sys
from collections.abc import Callable

from . import console

# sysexits.h: a temporary condition, try again later
EXIT_STATUS = os.EX_TEMPFAIL

_requested = False
_signals = 0  # of those that end a run, so far


class Stopped(Exception):
    """The run stopped on request with steps left. The message says how to resume it."""


def listen() -> None:
    """Handle SIGUSR1 as a request to stop from now on, and forget an earlier request. Call it in the main thread."""
    global _requested, _signals
    _requested, _signals = False, 0
    signal.signal(signal.SIGUSR1, _request)


def end_with(line: Callable[[], str]) -> None:
    """Say a line as soon as Ctrl-C or SIGTERM arrives, before the run's processes end, which takes seconds.

    Both then unwind this process, as Ctrl-C does in Python. A second signal only prints that the run's processes are
    ending, because it would interrupt their cleanup; a third interrupts it. Where Ctrl-C is ignored, it stays ignored:
    a shell does that for commands in the background.

    Args:
        line: returns it; it is called in the signal's handler.
    """

    def end(signum, frame) -> None:
        global _signals
        _signals += 1
        if _signals == 1:
            console.say_at_once(f"{'Ctrl-C' if signum == signal.SIGINT else 'SIGTERM'}: {line()}")
        if _signals == 2:
            console.say_at_once("the run's processes are ending; a third signal may leave some of them behind")
            return
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + signum)

    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)


def is_ending() -> bool:
    """Return whether a signal is ending the run, and the line of `end_with` has been said."""
    return _signals > 0


def stop_requested() -> bool:
    """Return whether SIGUSR1 has arrived since `listen`."""
    return _requested


def _request(signum, frame) -> None:
    global _requested
    if not _requested:
        console.say_at_once("SIGUSR1: stopping after this step, with a checkpoint")
    _requested = True
