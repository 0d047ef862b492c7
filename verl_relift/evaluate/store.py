"""Stores graded responses in `generations.jsonl`, one per line, as they arrive: an interruption loses none."""

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

    Attributes:
        key: key of the question, see `EvaluationQuestion.key`.
        sample: index of the response among the question's samples.
        source: data source of the question.
        question: last message of the prompt.
        outcome: value of a `GradeOutcome`.
        answer: the extracted final answer, or None.
        ground_truth: what the answer was compared with.
        tokens: length of the response.
        truncated: whether the response was cut at the length limit.
        response: text of the response.
        reward: what a reward function of the user's returned; None where the grader judged.
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
    reward: float | None = None

    @property
    def correct(self) -> bool:
        """Whether the answer is correct."""
        return self.outcome == "correct"


_FIELDS = tuple(field.name for field in fields(Graded))


class Store:
    """The graded responses of one evaluation in a folder. Appending is thread-safe."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Open the folder; an evaluation found there is continued.

        Args:
            folder: the folder; created if it does not exist.
            settings: everything that the numbers depend on.

        Raises:
            EvaluationError: the folder holds an evaluation with other settings, and mixing the two would give a number
                that belongs to neither; or it holds something else.
        """
        self.folder = folder
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise EvaluationError(f"{folder}: a file is there; --output takes a folder") from None
        known = folder / SETTINGS
        if known.is_file():
            changed = _differences(json.loads(known.read_text()), json.loads(json.dumps(settings)))
            if changed:
                raise EvaluationError(
                    f"{folder}: has an evaluation with other settings ({'; '.join(changed)}); choose another --output"
                )
        else:
            if (folder / GENERATIONS).exists():
                raise EvaluationError(f"{folder}: has {GENERATIONS} but no {SETTINGS}; choose another --output")
            if other := next((file.name for file in folder.iterdir() if not _may_be_there(file)), None):
                raise EvaluationError(f"{folder}: has no evaluation, but {other}; choose a new --output")
            _write(known, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        self._drop_torn_line()
        self._file = (folder / GENERATIONS).open("a", encoding="utf-8")

    def done(self) -> set[tuple[str, int]]:
        """Return (key, sample) of every stored response."""
        return {(graded.key, graded.sample) for graded in read_generations(self.folder)}

    def append(self, graded: Graded) -> None:
        """Append a response; when this returns, the operating system has it."""
        record = {name: getattr(graded, name) for name in _FIELDS}
        if graded.reward is None:
            del record["reward"]
        line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def finish(self) -> None:
        """Close the file and sort its lines by question and sample, so that equal evaluations give equal files."""
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
        """Remove an incomplete last line, which a kill leaves behind."""
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
    """Read the graded responses of an evaluation.

    Args:
        folder: folder of the evaluation.

    Yields:
        One response per line, in the order of the file.

    Raises:
        EvaluationError: the file is missing, or a line is not a response.
    """
    path = folder / GENERATIONS
    if not path.is_file():
        raise EvaluationError(f"{folder}: no {GENERATIONS}; give the --output folder of an evaluation")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Graded(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise EvaluationError(f"{path}, line {number}: not a response of an evaluation ({error})") from error


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json` atomically."""
    _write(folder / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _may_be_there(file: Path) -> bool:
    """Whether a file may be in the folder of a new evaluation: a log of its command, or what a kill has left."""
    return file.suffix in (".log", ".out", ".err") or file.name == Path(SETTINGS).with_suffix(".tmp").name


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {str(old.get(name))[:80]} in the folder, {str(new.get(name))[:80]} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
