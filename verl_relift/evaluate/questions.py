"""Reads the questions of an evaluation from parquet files in verl's schema."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import EvaluationError

_COLUMNS = ("data_source", "prompt", "reward_model")
_SHOWN_ROWS = 5
_MAKE = "python -m data_preprocess.jsonl makes a file in verl's schema of it (docs/own-data.md)"


@dataclass(frozen=True, slots=True)
class EvaluationQuestion:
    """One row of a parquet file.

    Attributes:
        key: `<first 12 digits of the file's sha256>:<row>`; does not change when the file moves.
        source: the row's `data_source`.
        messages: the prompt as a chat, `{"role", "content"}` each.
        ground_truth: a string, a number, or a list of alternatives; what a reward function of the user's takes.
        extra_info: the row's `extra_info`.
    """

    key: str
    source: str
    messages: tuple[dict[str, str], ...]
    ground_truth: Any
    extra_info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A parquet file that was read: name without folder, sha256 (hex) and number of rows."""

    name: str
    sha256: str
    rows: int


def read_questions(paths: Sequence[Path], mathematics: bool = True) -> tuple[list[EvaluationQuestion], list[DataFile]]:
    """Read every row of every file, in order.

    Args:
        paths: parquet files.
        mathematics: whether ground truths must be answers that the grader takes; otherwise all but null will do.

    Returns:
        The questions, and what identifies each file.

    Raises:
        EvaluationError: a file is missing, not parquet, lacks a column, is given twice, or has a row without prompt,
            source or ground truth.
    """
    accepted = _is_answer if mathematics else _is_given
    questions: list[EvaluationQuestion] = []
    files: list[DataFile] = []
    for path in paths:
        values_of_rows, sha256 = _read(path)
        if any(file.sha256 == sha256 for file in files):
            raise EvaluationError(f"{path}: same contents as an earlier file of --data; give each file once")
        rows = [
            EvaluationQuestion(
                f"{sha256[:12]}:{row}",
                values["data_source"],
                _messages(values["prompt"]),
                _ground_truth(values),
                values.get("extra_info") or {},
            )
            for row, values in enumerate(values_of_rows)
        ]
        _require(path, rows, "data_source", lambda question: isinstance(question.source, str) and question.source)
        _require(path, rows, "prompt", lambda question: question.messages)
        _require(path, rows, "reward_model.ground_truth", lambda question: accepted(question.ground_truth))
        questions += rows
        files.append(DataFile(path.name, sha256, len(rows)))
    if not questions:
        raise EvaluationError("--data: the files have no rows")
    return questions, files


def _read(path: Path) -> tuple[list[dict[str, Any]], str]:
    if not path.is_file():
        raise EvaluationError(f"{path}: is a folder; name its files" if path.is_dir() else f"{path}: no such file")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        schema = pq.read_schema(path)
        names = schema.names
        missing = [name for name in _COLUMNS if name not in names]
        if missing:
            has = ", ".join(names)
            raise EvaluationError(f"{path}: no column {', '.join(missing)}; it has {has}; {_MAKE}")
        if pa.types.is_string(schema.field("prompt").type) or pa.types.is_large_string(schema.field("prompt").type):
            raise EvaluationError(f"{path}: the column prompt has texts, not lists of messages; {_MAKE}")
        read = [name for name in (*_COLUMNS, "extra_info") if name in names]
        return pq.read_table(path, columns=read).to_pylist(), sha256
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: a text is not UTF-8 ({error}); write the file again") from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise EvaluationError(f"{path}: not a parquet file, or a damaged one ({reason}); {_MAKE}") from error


def _messages(prompt: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(prompt, list):
        return ()
    messages = tuple({"role": turn.get("role"), "content": turn.get("content")} for turn in prompt)
    return messages if all(turn["role"] and turn["content"] for turn in messages) else ()


def _ground_truth(row: Mapping[str, Any]) -> Any:
    reward_model = row["reward_model"]
    return reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None


def _is_given(ground_truth: Any) -> bool:
    return ground_truth is not None


def _is_answer(ground_truth: Any) -> bool:
    if isinstance(ground_truth, list):
        return any(_is_answer(alternative) for alternative in ground_truth)
    if isinstance(ground_truth, str):
        return bool(ground_truth.strip())
    return isinstance(ground_truth, int | float) and not isinstance(ground_truth, bool) and ground_truth == ground_truth


def _require(path: Path, rows: Iterable[EvaluationQuestion], column: str, holds: Any) -> None:
    bad = [row for row, question in enumerate(rows) if not holds(question)]
    if bad:
        shown = ", ".join(map(str, bad[:_SHOWN_ROWS])) + (", ..." if len(bad) > _SHOWN_ROWS else "")
        raise EvaluationError(f"{path}: {len(bad)} rows without {column}, such as row {shown}; remove or complete them")
