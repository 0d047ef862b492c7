"""Sources of rows: a `Source` (the files or the hub data set of one split) yields a `Record` per row.

Text is read line by line and parquet batch by batch, so memory does not grow with the input.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from .background import read_ahead
from .errors import DataError, Reason
from .fields import kind_of

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".ndjson", ".tsv")
COMPRESSED = (".gz", ".zst", ".bz2")  # a text file may have one of these after its own suffix
_SAVED = "state.json"  # a file in each folder that `datasets.Dataset.save_to_disk` makes
_DELIMITERS = ",;\t|"
MAX_FIELD_BYTES = 10 << 20
_BATCH_ROWS, _BATCH_BYTES = 1000, 8 << 20  # limits of one batch of parquet
_CHUNK = 1 << 20  # bytes of a JSON array to read at a time
_EXCERPT_BYTES, _SHOWN = 1000, 80  # of a line that can't be read: what is kept of it, and what a message shows
_LARGEST = 16  # a JSON or CSV row longer than this multiple of --max-field-bytes makes the file unreadable


@dataclass(slots=True)
class Record:
    """One row of the input, or the reason why it cannot be read.

    Attributes:
        file: the path of the file, or the hub data set.
        row: line number (from 1) of a text file, row number (from 0) of a parquet file.
        value: the columns; None if the row cannot be read.
        error: the fault; None if there is none.
    """

    file: str
    row: int
    value: dict[str, Any] | None
    error: DataError | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The input of one split: local files, read in order, or a hub data set."""

    split: str
    files: tuple[Path, ...] = ()
    hub: str | None = None
    hub_config: str | None = None
    hub_split: str | None = None

    def records(self, columns: Sequence[str] | None = None, max_field_bytes: int = MAX_FIELD_BYTES) -> Iterator[Record]:
        """Yield every record in order.

        Args:
            columns: the columns to read from parquet files, if they exist; None for all.
            max_field_bytes: a longer field is a fault of its row.

        Raises:
            DataError: a file or the hub data set cannot be read at all.
        """
        if self.hub is not None:
            yield from _hub(self.hub, self.hub_config, self.hub_split or self.split, max_field_bytes)
        for path in self.files:
            yield from read_file(path, columns, max_field_bytes)

    def count(self) -> int | None:
        """Return the number of rows; None if it is unknown before they are read."""
        if self.hub is None and all(path.suffix == ".parquet" for path in self.files):
            return sum(_parquet_rows(path) for path in self.files)
        return None

    def describe(self) -> list[str]:
        """Return the names of the input, for `stats.json`."""
        return [f"hub:{self.hub}"] if self.hub else [str(path) for path in self.files]


def _parquet_rows(path: Path) -> int:
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    problem = f"cannot be read as {path.suffix[1:]} ({str(error).splitlines()[0]})"
    return DataError(Reason.UNREADABLE, problem, file=str(path), remedy="copy or download it again")


def find(inputs: Sequence[str], splits: Sequence[str], hub_config: str | None = None) -> list[Source]:
    """Return the sources that `--input` names.

    A folder provides every split that starts the name of a file or a subfolder (`train.jsonl`,
    `test-00000-of-00001.parquet`, `train/algebra/1.json`). A file belongs to the split that its name contains, else to
    the first of `splits`. Anything else is a hub id.

    Args:
        inputs: folders, files or hub ids.
        splits: names of the splits to look for.
        hub_config: configuration of a hub data set.

    Raises:
        DataError: an input does not exist, or a folder has no file of any split.
    """
    files: dict[str, list[Path]] = {split: [] for split in splits}
    hubs = []
    for name in inputs:
        path = Path(name)
        if not name:
            raise DataError(Reason.UNREADABLE, "--input is an empty name", remedy="give a folder, files or a hub id")
        if path.is_file() or (path / _SAVED).is_file():
            stem = path.name.lower()
            files[next((split for split in splits if re.search(rf"(?<![a-z]){split}", stem)), splits[0])].append(path)
        elif path.is_dir():
            for split, found in _in_folder(path, splits).items():
                files[split] += found
        elif format_of(path) in SUFFIXES or name.count("/") != 1 or name.startswith((".", "/")):
            raise DataError(Reason.UNREADABLE, "no such file or folder", file=name, remedy="check --input")
        else:
            hubs += [Source(split, hub=name, hub_config=hub_config) for split in splits]
    return [Source(split, tuple(paths)) for split, paths in files.items() if paths] + hubs


def _in_folder(folder: Path, splits: Sequence[str]) -> dict[str, list[Path]]:
    """Return the data files of a folder by split; with a single split, files that name none belong to it."""
    found: dict[str, list[Path]] = {}
    unnamed: list[Path] = []
    saved = {path.parent for path in folder.rglob(_SAVED)}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_data = path in saved or (path.is_file() and format_of(path) in SUFFIXES and path.parent not in saved)
        if not is_data or any(part.startswith(".") for part in parts) or path.name == "dataset_dict.json":
            continue
        split = next((split for part in parts for split in splits if part.lower().startswith(split)), None)
        if split is None:
            unnamed.append(path)
        else:
            found.setdefault(split, []).append(path)
    if not found and unnamed and len(splits) == 1:
        return {splits[0]: unnamed}
    if not found:
        names = " or ".join(f"{split}{suffix}" for split in splits for suffix in SUFFIXES[:2])
        remedy = f"expected {names}" + (f"; or say with --split what {unnamed[0].name} is" if unnamed else "")
        raise DataError(Reason.UNREADABLE, "no data file of a split in this folder", file=str(folder), remedy=remedy)
    return found


def format_of(path: Path) -> str:
    """Return the suffix that names a file's format, in small letters: `.jsonl` for `train.JSONL.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; a compressed one is decompressed as it is read."""
    if path.suffix.lower() not in COMPRESSED:
        with open(path, "rb") as file:
            yield file
        return
    with pa.input_stream(str(path), compression="detect") as stream, io.BufferedReader(stream, _CHUNK) as file:
        yield file


def read_file(
    path: Path, columns: Sequence[str] | None = None, max_field_bytes: int = MAX_FIELD_BYTES
) -> Iterator[Record]:
    """Yield every record of one local file.

    Args:
        path: its suffix names the format, one of `SUFFIXES`, for text perhaps with one of `COMPRESSED` after it; or a
            folder of `datasets.Dataset.save_to_disk`.
        columns: the columns to read from a parquet file, if they exist; None for all.
        max_field_bytes: a longer field is a fault of its row.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    readers = {".parquet": _parquet, ".json": _json, ".csv": _csv, ".tsv": _csv}
    readers |= dict.fromkeys((".jsonl", ".ndjson"), _json_lines)
    reader = _saved if path.is_dir() else readers.get(format_of(path))
    if reader is None:
        formats = f"{', '.join(SUFFIXES)}, text also with {', '.join(COMPRESSED)}"
        raise DataError(Reason.UNREADABLE, f"unknown format {path.suffix!r}", file=str(path), remedy=f"use {formats}")
    if path.suffix.lower() in COMPRESSED and reader is _parquet:
        raise DataError(Reason.UNREADABLE, "compressed parquet", file=str(path), remedy="decompress it first")
    try:
        if reader in (_json, _json_lines, _csv):
            _reject_utf16(path)
        yield from reader(path, columns, max_field_bytes)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _reject_utf16(path: Path) -> None:
    with _opened(path) as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            remedy = "save the file as UTF-8"
            raise DataError(Reason.UNREADABLE, "the text is UTF-16", file=str(path), remedy=remedy)


def _checked(file: str, row: int, value: dict[str, Any] | DataError, size: int, limit: int) -> Record:
    """Return a record.

    `size` is an upper bound on the bytes of its largest field, so most records need no closer look.
    """
    if isinstance(value, DataError):
        return Record(file, row, None, value)
    return Record(file, row, value, _oversized(value, limit) if size > limit else None)


def _oversized(value: dict[str, Any], limit: int) -> DataError | None:
    for column, field in value.items():
        parts = field if isinstance(field, list) else (field,)
        for part in parts:
            text = part.get("content") if isinstance(part, dict) else part
            if isinstance(text, str) and len(text) > limit:
                return DataError(
                    Reason.FIELD_TOO_LARGE,
                    f"{len(text):,} characters, more than the {limit:,} of --max-field-bytes",
                    column=column,
                    remedy="drop the row or raise the limit",
                )
    return None


def _parquet(path: Path, columns: Sequence[str] | None, limit: int) -> Iterator[Record]:
    with pq.ParquetFile(path, buffer_size=_CHUNK, pre_buffer=False) as file:
        chosen = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        row = 0
        # Arrow decodes without Python's global lock, so the next batch is ready when this one is used up.
        for batch in read_ahead(batches(file, chosen)):
            try:
                values = batch.to_pylist()
            except UnicodeDecodeError:
                values = [one_row(batch, i) for i in range(batch.num_rows)]
            name, size = str(path), batch.nbytes
            for value in values:
                yield _checked(name, row, value, size, limit)
                row += 1


def batches(file: pq.ParquetFile, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """Yield a parquet file in batches of bounded size, in rows and, by the row group's average, in bytes."""
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        size = max(1, min(_BATCH_ROWS, _BATCH_BYTES * metadata.num_rows // max(metadata.total_byte_size, 1)))
        yield from file.iter_batches(batch_size=size, row_groups=[group], columns=columns)


def one_row(batch: pa.RecordBatch, i: int) -> dict[str, Any] | DataError:
    """Return one row of a batch, or the fault that names the column that is not UTF-8."""
    value = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            value[name] = column[i].as_py()
        except UnicodeDecodeError as error:
            return DataError(Reason.INVALID_UTF8, f"not UTF-8: {error.reason} at byte {error.start}", column=name)
    return value


def _json_lines(path: Path, columns: Sequence[str] | None, limit: int) -> Iterator[Record]:
    with _opened(path) as file:
        number, line_limit = 0, 2 * limit
        while line := file.readline(line_limit):
            number += 1
            if len(line) == line_limit and not line.endswith(b"\n"):
                length = len(line)
                while (rest := file.readline(_CHUNK)) and not rest.endswith(b"\n"):
                    length += len(rest)
                problem = f"the line has {length + len(rest):,} bytes, more than twice --max-field-bytes"
                yield Record(
                    str(path),
                    number,
                    None,
                    DataError(Reason.FIELD_TOO_LARGE, problem, remedy="drop it or raise the limit"),
                )
                continue
            if line.isspace():
                continue
            value = parse_json(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, number)
            yield _checked(str(path), number, value, len(line), limit)


def parse_json(line: bytes, number: int | None = None) -> dict[str, Any] | DataError:
    """Parse one line as a JSON object; return the fault if it is not one.

    Args:
        line: with or without its end.
        number: of the line in its file, for the message.
    """
    try:
        value = json.loads(line.rstrip().decode("utf-8"))
        if b"\\ud" in line or b"\\uD" in line:  # JSON can spell half a surrogate pair, which UTF-8 cannot encode
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        return DataError(
            Reason.INVALID_UTF8,
            f"not UTF-8: {error.reason} at byte {error.start}",
            remedy="re-encode the file",
            excerpt=_excerpt(line),
        )
    except UnicodeEncodeError:
        problem = "half a surrogate pair (\\ud800..\\udfff)"
        return DataError(Reason.INVALID_UTF8, problem, remedy="re-encode the file", excerpt=_excerpt(line))
    except (ValueError, RecursionError) as error:
        name = "" if number is None else f"line {number} is "
        problem = f"{name}not JSON ({_where(error)}): {_shortened(_excerpt(line))}"
        return DataError(Reason.MALFORMED_JSON, problem, remedy="write one JSON object a line", excerpt=_excerpt(line))
    if not isinstance(value, dict):
        problem = f"{kind_of(value)}, not an object: {_shortened(_excerpt(line))}"
        return DataError(Reason.WRONG_TYPE, problem, remedy="write one JSON object a line", excerpt=_excerpt(line))
    return value


def _excerpt(line: bytes) -> str:
    """Return the beginning of a line that can't be read."""
    return line[:_EXCERPT_BYTES].decode("utf-8", "replace").strip()


def _where(error: Exception) -> str:
    """Return what is wrong with a line of JSON, and at which character of it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _shortened(text: str) -> str:
    """Return the beginning of a text, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _json(path: Path, columns: Sequence[str] | None, limit: int) -> Iterator[Record]:
    """Yield the objects of an array, or those of the file one after the other, as JSON Lines has them; rows from 1."""
    decoder, number = json.JSONDecoder(), 0
    # Bytes that are not UTF-8 become surrogates, so that the error can name their row.
    with _opened(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape") as file:
        try:
            buffer = file.read(_CHUNK).lstrip()
            array = buffer.startswith("[")
            buffer = buffer[1:] if array else buffer
            while True:
                buffer = buffer.lstrip(" \t\r\n,")
                if array and buffer.startswith("]"):
                    if (buffer[1:] + file.read(_CHUNK)).strip():
                        raise ValueError("more text after the end of the array")
                    return
                if not array and not buffer:
                    buffer = file.read(_CHUNK)
                    if not buffer:
                        return
                    continue
                try:
                    _, end = decoder.raw_decode(buffer)
                except ValueError:
                    more = file.read(max(_CHUNK, len(buffer)))
                    if not more or len(buffer) > _LARGEST * limit:
                        raise
                    buffer += more
                    continue
                value = parse_json(buffer[:end].encode("utf-8", "surrogateescape"))
                number, buffer = number + 1, buffer[end:]
                yield _checked(str(path), number, value, end, limit)
        except (ValueError, RecursionError) as error:
            # The parser counts lines and characters from the end of the row before.
            reason = error.msg if isinstance(error, json.JSONDecodeError) else _where(error)
            problem = f"not JSON ({reason}): {_shortened(buffer[:_EXCERPT_BYTES])}"
            raise DataError(Reason.MALFORMED_JSON, problem, file=str(path), row=number + 1) from error


def _csv(path: Path, columns: Sequence[str] | None, limit: int) -> Iterator[Record]:
    csv.field_size_limit(_LARGEST * limit)
    with _opened(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as file:
        first = file.readline(_CHUNK)
        delimiter = "\t" if format_of(path) == ".tsv" else _delimiter(first)
        reader = csv.reader(file, delimiter=delimiter)
        try:
            names = next(csv.reader([first], delimiter=delimiter), [])
            twice = next((name for name in names if name and names.count(name) > 1), None)
            if twice is not None:
                raise csv.Error(f"the header names {twice} twice")
            for fields in reader:
                if not fields:
                    continue
                value = _named(fields, names)
                number = reader.line_num + 1
                yield _checked(str(path), number, value, limit + 1, limit)
        except csv.Error as error:
            raise DataError(Reason.UNREADABLE, f"not CSV: {error}", file=str(path), row=reader.line_num + 1) from error


def _delimiter(header: str) -> str:
    """Return the character that separates most fields of the header."""
    return max(_DELIMITERS, key=lambda one: len(next(csv.reader([header], delimiter=one), [])))


def _named(fields: list[str], names: list[str]) -> dict[str, Any] | DataError:
    """Return a CSV row by column; the fault if it has more or fewer fields than the header."""
    if len(fields) != len(names):
        problem = f"{len(fields)} fields, and the header names {len(names)}"
        return DataError(Reason.WRONG_TYPE, problem, remedy="put fields that contain the separator in quotes")
    return _decoded(dict(zip(names, fields, strict=True)))


def _decoded(value: dict[str, Any]) -> dict[str, Any] | DataError:
    """Return a CSV row, or the fault that names the column that is not UTF-8."""
    for column, field in value.items():
        try:
            str(field).encode()
        except UnicodeEncodeError as error:
            problem = f"not UTF-8: byte 0x{ord(error.object[error.start]) - 0xDC00:02x}"
            return DataError(Reason.INVALID_UTF8, problem, column=column, remedy="re-encode the file")
    return value


def _saved(path: Path, columns: Sequence[str] | None, limit: int) -> Iterator[Record]:
    """Yield the rows of a folder of `datasets.Dataset.save_to_disk`."""
    import datasets

    try:
        rows = datasets.load_from_disk(str(path))
        chosen = None if columns is None else [name for name in columns if name in rows.column_names]
        for row, value in enumerate(rows if chosen is None else rows.select_columns(chosen)):
            yield _checked(str(path), row, value, limit + 1, limit)
    except (ValueError, FileNotFoundError) as error:
        problem = f"datasets cannot load this folder ({_one_line(error)})"
        raise DataError(Reason.UNREADABLE, problem, file=str(path), remedy="save it again") from error


def _hub(name: str, config: str | None, split: str, limit: int) -> Iterator[Record]:
    import datasets
    from datasets.exceptions import DatasetsError

    row = -1
    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=True)
        for row, value in enumerate(rows):
            yield _checked(f"hub:{name}", row, value, limit + 1, limit)
    except (OSError, ValueError, pa.ArrowException, DatasetsError) as error:
        place = "" if row < 0 else f" after row {row}"
        problem = f"not a local path, and datasets cannot load its split {split!r}{place} ({_one_line(error)})"
        remedy = "check --input, --hub-config and, if you gave it, --split"
        raise DataError(Reason.UNREADABLE, problem, file=f"hub:{name}", remedy=remedy) from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or repr(error.__cause__)).splitlines()[0]}"
