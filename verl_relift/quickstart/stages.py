"""Runs the quickstart's stages as the commands that a user would type, with their output in log files."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import psutil
from rich.console import Console

LAST_LINES = 25  # number of lines of a failed stage's log to show
SAMPLING_INTERVAL = 2.0  # seconds between two measurements of memory


class StageFailed(RuntimeError):
    """A stage failed; the message has the command, the path of the log and its last lines."""


class MemoryWatch:
    """Measures the peak memory of a process with all its descendants.

    Attributes:
        peak: bytes of proportional set size, which counts shared pages once.
    """

    def __init__(self):
        self.peak = 0
        self._stop = threading.Event()

    def follow(self, pid: int) -> threading.Thread:
        """Start a thread that measures until the process ends or `stop` is called."""
        self._stop.clear()
        thread = threading.Thread(target=self._follow, args=(psutil.Process(pid),), daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End the measurement."""
        self._stop.set()

    def _follow(self, root: psutil.Process) -> None:
        while not self._stop.wait(SAMPLING_INTERVAL):
            try:
                processes = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            self.peak = max(self.peak, sum(map(_pss, processes)))


def _pss(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def run(command: Sequence[str], log: Path, memory: MemoryWatch, watch: Callable[[], None] = lambda: None) -> float:
    """Run `python COMMAND`.

    Args:
        command: arguments of `python`.
        log: file for its output.
        memory: measures it while it runs.
        watch: called twice a second while it runs.

    Returns:
        Seconds that it took.

    Raises:
        StageFailed: it exited with a status other than 0.
    """
    start = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        # In its own session, so that Ctrl-C reaches it and its children exactly once, through `_end`.
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(),
        )
        memory.follow(process.pid)
        try:
            while process.poll() is None:
                watch()
                time.sleep(0.5)
        except BaseException:
            _end(process)
            raise
        finally:
            memory.stop()
    watch()
    if process.returncode:
        lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        raise StageFailed(
            f"`python {' '.join(command)}` exited with status {process.returncode}; the end of {log}:\n"
            + "\n".join(f"  {line[:300]}" for line in lines)
        )
    return time.monotonic() - start


def end_with(go: Callable[[], Sequence[str]], console: Console, interrupted: str) -> NoReturn:
    """Run all stages and end this process.

    Args:
        go: runs them; returns what the model did not learn.
        interrupted: what to say on Ctrl-C.

    Raises:
        SystemExit: with status 0; with 1 if a stage failed or the model did not learn; with 130 on Ctrl-C.
    """
    try:
        missing = go()
    except StageFailed as error:
        console.print(str(error), markup=False, highlight=False, style="red")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print(interrupted)
        sys.exit(130)
    for line in missing:
        console.print(f"did not learn enough: {line}", style="red")
    sys.exit(1 if missing else 0)


def _end(process: subprocess.Popen) -> None:
    """Interrupt the process like Ctrl-C, so that it shuts Ray down; kill it after 30 seconds."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
