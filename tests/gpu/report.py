"""What a step finds: figures and checks in a JSON file, written after each, so that a killed step leaves them."""

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Skipped(Exception):
    """The step can't be made on this machine; the message says why."""


class Report:
    """The findings of one step.

    A check that fails is noted, and the step continues.
    """

    def __init__(self, path: Path, step: str, device: str):
        """
        Args:
            path: the JSON file.
            step: the step's name.
            device: `cuda` or `cpu`.
        """
        self._path = path
        self._started = time.time()
        self._content: dict[str, Any] = {
            "step": step,
            "device": device,
            "started": self._started,
            "status": "running",
            "figures": {},
            "checks": [],
            "errors": [],
        }
        self._write()

    def figure(self, name: str, value: Any) -> None:
        """Note a number or a text."""
        self._content["figures"][name] = value
        print(f"{name}: {value}", flush=True)
        self._write()

    def check(self, name: str, holds: bool, found: Any, wanted: str) -> None:
        """Note whether something holds.

        Args:
            name: what is checked.
            holds: the outcome.
            found: what was found.
            wanted: the bar, in words.
        """
        self._content["checks"].append({"name": name, "holds": bool(holds), "found": found, "wanted": wanted})
        print(f"{'ok' if holds else 'FAILED'}: {name}: {found} ({wanted})", flush=True)
        self._write()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Note what is raised inside, and continue after the block."""
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.error(name, error)
        self._content["figures"][f"{name}: seconds"] = round(time.perf_counter() - started, 1)
        self._write()

    def error(self, name: str, error: BaseException) -> None:
        """Note an exception."""
        text = "".join(traceback.format_exception(error))
        print(text, file=sys.stderr, flush=True)
        self._content["errors"].append(
            {"part": name, "error": f"{type(error).__name__}: {error}"[:2000], "trace": text[-4000:]}
        )
        self._write()

    def finish(self, skipped: str | None = None) -> bool:
        """Write the outcome.

        Args:
            skipped: why the step was not made, if it was not.

        Returns:
            Whether every check held and nothing was raised.
        """
        holds = not self._content["errors"] and all(check["holds"] for check in self._content["checks"])
        self._content["status"] = "skipped" if skipped else "ok" if holds else "failed"
        if skipped:
            self._content["reason"] = skipped
        self._write()
        return holds

    def _write(self) -> None:
        self._content["seconds"] = round(time.time() - self._started, 1)
        text = json.dumps(self._content, indent=1, default=str)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(self._path)
