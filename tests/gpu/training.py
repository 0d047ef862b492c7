"""Training commands in a process of their own, as a user gives them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def command(*arguments: str) -> None:
    """Run `python -m ARGUMENTS` to its end.

    Raises:
        CalledProcessError: it failed; its output is in the step's log.
    """
    subprocess.run([sys.executable, "-m", *arguments], check=True)


def train(folder: Path, *arguments: str, stop_after: float | None = None) -> int:
    """Train, and stop by SIGUSR1 between two steps once the time is over.

    Args:
        folder: the run's folder.
        arguments: of `verl_relift.train`.
        stop_after: seconds; None: not before the last step.

    Returns:
        The command's exit status.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "verl_relift.train", *arguments, f"trainer.default_local_dir={folder}"],
        env={**os.environ, "WANDB_MODE": "offline"},
    )
    try:
        return process.wait(timeout=stop_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)
        return process.wait()
    except BaseException:
        process.terminate()
        raise


def records(folder: Path) -> list[dict]:
    """Return the lines of the run's metrics.jsonl."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
