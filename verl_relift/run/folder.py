"""Write to a run's folder, `trainer.default_local_dir`."""

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from . import lock
from .redact import redact

METRICS = "metrics.jsonl"
CONFIG = "config.yaml"
TRACKER = "latest_checkpointed_iteration.txt"
_TEMPORARY = re.compile(rf"\.({re.escape(METRICS)}|{re.escape(CONFIG)}|{re.escape(TRACKER)}|space)\.\d+")


def write_atomically(path: Path, text: str) -> None:
    """Replace the file at `path` by one with `text`. A reader sees the old file or the complete new one.

    Raises:
        OSError: it can't be written; the old file is there as before, and nothing beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_config(folder: Path, config: DictConfig) -> None:
    """Write a run's configuration, resolved and without secrets."""
    shown = redact(OmegaConf.to_container(config, resolve=True, throw_on_missing=False))
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(shown)))


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs have left of `write_atomically`. For the one run that has the folder."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink()


def recorded_steps(run: Path) -> set[int]:
    """Return the steps that have a line in a run's `metrics.jsonl`."""
    path = run / METRICS
    return {record["step"] for record, _ in _lines(path)} if path.exists() else set()


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each record of a file of metrics, and its line."""
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line), line
        except json.JSONDecodeError:
            continue  # a killed run was writing this line


class MetricsFile:
    """verl's tracker, with `metrics.jsonl` added to its outputs.

    Each line is a JSON object: `step` (int), `time` (Unix seconds), and one entry per metric, null where the value
    is not finite. A line is there whole, and on the disk, or not at all. A run that resumes after step N drops the
    lines of later steps, because it repeats those steps.

    Args:
        tracking: verl's `Tracking`, which receives every record too.
        path: the file.
        resume_step: the step that the run resumes from; 0 starts an empty file.
        then: called with each record once its line is written.
    """

    def __init__(
        self, tracking: Any, path: Path, resume_step: int, then: Callable[[dict[str, Any]], None] = lambda record: None
    ):
        self._tracking, self._then = tracking, then
        path.parent.mkdir(parents=True, exist_ok=True)
        self._keep_until(path, resume_step)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  closed in finish()

    @classmethod
    def beside(
        cls, tracking: Any, folder: str, resume_step: int, then: Callable[[dict[str, Any]], None]
    ) -> "MetricsFile":
        """Create the file in the run's `folder`, under its usual name."""
        return cls(tracking, Path(folder) / METRICS, resume_step, then)

    @staticmethod
    def _keep_until(path: Path, step: int) -> None:
        if not path.exists():
            return
        kept = [f"{line}\n" for record, line in _lines(path) if step > 0 and record["step"] <= step]
        write_atomically(path, "".join(kept))

    def log(self, data: dict[str, Any], step: int, backend=None) -> None:
        """Append `data` to the file and pass it on to verl's trackers.

        Raises:
            LockLost: another run has taken over the folder.
            OSError: the line can't be written, and is not there in part either.
        """
        lock.require()
        record: dict[str, Any] = {"step": step, "time": time.time()}
        for name, value in data.items():
            number = _number(value)
            if number is not None or _is_nan(value):
                record[name] = number
        self._append((json.dumps(record) + "\n").encode())
        # Plain numbers: verl's trackers print numpy's as `np.float64(0.5)`.
        plain = {name: value.item() if _is_numpy_scalar(value) else value for name, value in data.items()}
        try:
            self._tracking.log(data=plain, step=step, backend=backend)
        finally:
            self._then(record)  # a tracker that fails does not cost the step's checkpoint

    def _append(self, line: bytes) -> None:
        end = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file.fileno(), end)
            raise

    def finish(self, exit_code: int = 0) -> None:
        """Close the trackers and the file."""
        self._file.close()
        self._tracking.finish(exit_code=exit_code)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracking, name)


def _number(value: Any) -> float | int | None:
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def _is_numpy_scalar(value: Any) -> bool:
    return hasattr(value, "item") and getattr(value, "shape", None) == ()


def _is_nan(value: Any) -> bool:
    try:
        return not math.isfinite(value)
    except TypeError:
        return False
