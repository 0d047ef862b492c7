"""`generations.jsonl`: one graded response a line, appended as it comes: an interruption loses nothing."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .errors import EvaluationError

GENERATIONS, SETTINGS, SUMMARY = "generations.jsonl", "settings.json", "summary.json"


@dataclass(frozen=True, slots=True)
class Graded:
    """A response with its verdict.

    key, sample: which question (see `Question.key`) and which of its samples. source: its data source.
    question: the last message of its prompt.
    outcome: a `GradeOutcome`'s name. answer: the final answer as it was read, or None. ground_truth: what it was
    compared with. tokens: length of the response. truncated: whether it was cut at the token limit. response: its text.
    """

    key: str
    sample: int
    source: str
    question: str
    outcome: str
    answer: str | None
    ground_truth: Any
    tokens: int
    truncated: bool
    response: str

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        return self.outcome == "correct"


_FIELDS = tuple(field.name for field in fields(Graded))


class Store:
    """The responses of one evaluation in a folder. Appending is thread-safe."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Open the folder, or continue what is in it.

        settings: everything that the numbers depend on. Raises EvaluationError when the folder holds an evaluation with
        others: mixing them would give a number that belongs to neither.
        """
        self.folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / SETTINGS
        if known.is_file():
            changed = _differences(json.loads(known.read_text()), json.loads(json.dumps(settings)))
            if changed:
                raise EvaluationError(
                    f"{folder}: holds an evaluation with other settings ({'; '.join(changed)}); choose another --output"
                )
        else:
            if (folder / GENERATIONS).exists():
                raise EvaluationError(f"{folder}: has {GENERATIONS} but no {SETTINGS}; choose another --output")
            _write(known, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        self._drop_torn_line()
        self._file = (folder / GENERATIONS).open("a", encoding="utf-8")

    def done(self) -> set[tuple[str, int]]:
        """(key, sample) of every response that is there."""
        return {(graded.key, graded.sample) for graded in read_generations(self.folder)}

    def append(self, graded: Graded) -> None:
        """Add a response; it is with the operating system when this returns."""
        line = json.dumps({name: getattr(graded, name) for name in _FIELDS}, ensure_ascii=False) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def finish(self) -> None:
        """Close, and put the lines in order of question and sample: equal evaluations give equal files."""
        self._file.close()
        path = self.folder / GENERATIONS
        places = []
        with path.open("rb") as file:
            while line := file.readline():
                record = json.loads(line)
                name, row = record["key"].rsplit(":", 1)
                places.append((name, int(row), record["sample"], file.tell() - len(line), len(line)))
        order = sorted(places)
        if order == places:
            return
        temporary = path.with_suffix(".tmp")
        with path.open("rb") as source, temporary.open("wb") as target:
            for *_, offset, length in order:
                source.seek(offset)
                target.write(source.read(length))
        os.replace(temporary, path)

    def _drop_torn_line(self) -> None:
        """Cut a last line that a kill left without its end."""
        path = self.folder / GENERATIONS
        if not path.exists():
            return
        with path.open("r+b") as file:
            end = whole = 0
            for line in file:
                end += len(line)
                if line.endswith(b"\n"):
                    whole = end
            file.truncate(whole)


def read_generations(folder: Path) -> Iterator[Graded]:
    """The responses of an evaluation's folder, one at a time.

    Raises EvaluationError when there are none or a line is not a response.
    """
    path = folder / GENERATIONS
    if not path.is_file():
        raise EvaluationError(f"{folder}: no {GENERATIONS}; not the --output of an evaluation")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Graded(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise EvaluationError(f"{path}, line {number}: not a response of an evaluation ({error})") from error


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json`, whole or not at all."""
    _write(folder / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {str(old.get(name))[:80]} there, {str(new.get(name))[:80]} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
