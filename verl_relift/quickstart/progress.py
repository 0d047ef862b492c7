"""Shows the progress of a training run, read from its `metrics.jsonl`."""

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..run.progress import Pace, describe, is_due


class TrainingProgress:
    """Shows the line of the training command, and a bar, for the steps that the run makes from now on.

    Args:
        metrics: the run's `metrics.jsonl`; it need not exist yet.
        total_steps: number of steps of the run.
        console: where to show it.
    """

    def __init__(self, metrics: Path, total_steps: int, console: Console):
        self._path, self._total, self._console = metrics, total_steps, console
        self._position = metrics.stat().st_size if metrics.exists() else 0
        self._pace = Pace()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("starting Ray, Megatron and vLLM", total=total_steps)

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_exc) -> None:
        self._bar.stop()

    def update(self) -> None:
        """Show the steps that the file has gained since the last call."""
        if not self._path.exists():
            return
        # A run that resumes takes out the steps after its last checkpoint.
        self._position = min(self._position, self._path.stat().st_size)
        with open(self._path) as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith("\n"):
                    break  # still being written
                self._position += len(line.encode())
                self._show(json.loads(line))

    def _show(self, record: dict) -> None:
        step = record["step"]
        if step == 0:
            return
        text = describe(record, self._total, self._pace.seconds_left(record, self._total))
        self._bar.update(self._task, completed=step, description=text)
        if not self._console.is_terminal and is_due(step, self._total, 0.0):
            self._console.print(text, soft_wrap=True, highlight=False)
