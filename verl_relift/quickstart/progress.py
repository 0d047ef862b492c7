"""Shows the progress of a training run, read from its `metrics.jsonl`."""

import json
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

PLAIN_EVERY = 10  # steps between two lines if the output is not a terminal


class TrainingProgress:
    """Shows step, reward, hardest questions, buffer, supervised updates and remaining time.

    Args:
        metrics: the run's `metrics.jsonl`; it need not exist yet.
        total_steps: number of steps of the run.
        console: where to show it.
    """

    def __init__(self, metrics: Path, total_steps: int, console: Console):
        self._path, self._total, self._console = metrics, total_steps, console
        self._position = 0
        self._durations: list[float] = []
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
        self._durations.append(record.get("timing_s/step") or 0.0)
        recent = self._durations[-10:]
        left = (self._total - step) * sum(recent) / len(recent)
        text = (
            f"step {step}/{self._total}  reward {record.get('critic/score/mean', 0):.2f}  "
            f"hardest {record.get('relift/hardest_questions', 0):.0f}  "
            f"buffer {record.get('relift/buffer_size', 0):.0f}  "
            f"SFT updates {record.get('relift/sft_updates', 0):.0f}  "
            f"{recent[-1]:.1f} s/step  ETA {time.strftime('%M:%S', time.gmtime(left))}"
        )
        self._bar.update(self._task, completed=step, description=text)
        if not self._console.is_terminal and (step % PLAIN_EVERY == 0 or step == 1):
            self._console.print(text, soft_wrap=True)
