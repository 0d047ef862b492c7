"""What the user of a command reads, apart from what libraries print.

Until `redirect` is called the console is this process's stderr. From then on, everything that this process and its
children write to stdout and stderr goes to a log file, and only `say` and `live` reach the user. This is done with file
descriptors, because libraries also print from C++ and from processes of their own, some of them when Python has ended.
"""

import logging
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

# Of a run's folder.
LOG = Path("logs") / "train.log"

_ERASE = b"\r\x1b[2K"
_FOLLOW_SECONDS = 0.3

_lock = threading.RLock()
_user = 2  # the file descriptor that the user reads
_log: Path | None = None
_followed: BinaryIO | None = None  # the log, where all of it is shown
_live = ""  # the line at the end of a terminal that the next one replaces
_last_said = time.monotonic()
_times_said = 0
_said = ""  # by the last `say`

# Lines of the log that say nothing: the heading of a start, and Hydra's advice below an error.
_IDLE = ("==== ", "Set the environment variable HYDRA_FULL_ERROR")
_TAIL = 8192  # bytes


def redirect(log: Path, follow: bool = False) -> None:
    """Send stdout and stderr of this process and of its children to the end of a file, from now on.

    Args:
        log: the file; its folder is made.
        follow: show everything that is written to the file on the console.

    Raises:
        OSError: the file can't be written.
    """
    global _user, _log, _followed
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    # A copy that children don't inherit: one that outlives this process would keep the user's pipe open.
    _user, _log = os.dup(2), log
    if follow:
        _followed = open(log, "rb", buffering=0)  # noqa: SIM115  for the rest of the process
        _followed.seek(0, os.SEEK_END)
        threading.Thread(target=_follow, name="log-follower", daemon=True).start()
    os.write(file, f"==== {time.strftime('%Y-%m-%d %H:%M:%S')}, process {os.getpid()}\n".encode())
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    sys.stdout.reconfigure(line_buffering=True)


def log_file() -> Path | None:
    """Return the file that `redirect` has named."""
    return _log


def say(text: str) -> None:
    """Write a line, or several, to the user, above the live line. What is said is in the log too."""
    global _last_said, _times_said, _said
    with _lock:
        _last_said = time.monotonic()
        _times_said += 1
        _said = text
        if _log is not None:
            print(text, file=sys.stderr, flush=True)
        if _followed is None:
            _write((_ERASE if _live else b"") + f"{text}\n{_live}".encode(errors="replace"))


def say_at_once(text: str) -> None:
    """Write a line from a signal handler, which may have interrupted any other function of this module."""
    _write((_ERASE if _live else b"") + text.encode() + b"\n")


def live(text: str) -> None:
    """Replace the line at the end of a terminal; an empty one removes it. Elsewhere it does nothing."""
    global _live
    if not is_terminal():
        return
    with _lock:
        _live = text[: shutil.get_terminal_size().columns - 1]
        _write(_ERASE + _live.encode(errors="replace"))


def seconds_of_silence() -> float:
    """Return the time since the last `say`."""
    return time.monotonic() - _last_said


def times_said() -> int:
    """Return how often `say` was called."""
    return _times_said


def last_logged() -> str:
    """Return the last line of the log that says something new to the user; an empty one if there is none."""
    if _log is None:
        return ""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        with open(_log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip() and not line.startswith(_IDLE)), "")
    return "" if last in _said else last


def is_terminal() -> bool:
    """Return whether a line can be replaced: the user reads a terminal, and only this module writes to it."""
    return _log is not None and _followed is None and os.isatty(_user)


def _write(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(_user, data) :]
    except OSError:
        pass  # the terminal is closed, or the reader of the pipe has gone; the run continues, and the log has it


def _follow() -> None:
    while True:
        show_followed()
        time.sleep(_FOLLOW_SECONDS)


def show_followed() -> None:
    """Show what the log has gained, where it is followed."""
    with _lock:
        while _followed is not None and (data := _followed.read(65536)):
            _write(data)


class Handler(logging.Handler):
    """Shows this program's own warnings to the user."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        say(f"{record.levelname.lower()}: {record.getMessage()}")


def show_messages() -> None:
    """Write log messages of every library to stderr, which is the log file, and this program's warnings to the user."""
    file = logging.StreamHandler(sys.stderr)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.getLogger().addHandler(file)
    own = logging.getLogger("verl_relift")
    if own.handlers:
        return
    own.setLevel(logging.INFO)
    # Not by the root logger, which a library that vLLM imports silences.
    own.propagate = False
    for handler in (file, Handler(logging.WARNING)):
        own.addHandler(handler)
