"""Output files that appear complete or not at all.

Files are written under temporary names in the same folder and renamed when all of them are complete.
"""

import errno
import json
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from verl_relift.data.schema import SCHEMA, Row, to_batch

ROWS_PER_GROUP = 10_000  # rows of a parquet row group: small enough to stream, large enough to compress
BYTES_PER_GROUP = 64 << 20  # ... or this many bytes of text, whichever comes first


class OutputFolder:
    """The files of one run in one folder.

    This is a context manager. On a clean exit, every file is flushed to disk and renamed into place. On an exception (a
    full disk, Ctrl-C), the temporary files are removed and the earlier contents of the folder are untouched.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self._files: dict[str, Path] = {}
        self._closers: list[Any] = []

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            problem = "a file is there; --output takes a folder"
            raise NotADirectoryError(error.errno, problem, str(self.folder)) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            for closer in self._closers:
                try:
                    closer.close()
                except (OSError, pa.ArrowException):
                    if kind is None:
                        raise
            if kind is None:
                for temporary in self._files.values():
                    _sync(temporary)
                for name, temporary in self._files.items():
                    os.replace(temporary, self.folder / name)
        except OSError as write_error:
            raise explain(write_error, self.folder) from write_error
        finally:
            for temporary in self._files.values():
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explain(error, self.folder) from error

    def path(self, name: str) -> Path:
        """Return where to write a file until the folder is complete."""
        path = self.folder / f".{name}.{os.getpid()}.tmp"
        self._files[name] = path
        return path

    def parquet(self, name: str) -> "ParquetFile":
        """Open a parquet file of `SCHEMA` in the folder."""
        file = ParquetFile(self.path(name))
        self._closers.append(file)
        return file

    def text(self, name: str) -> IO[str]:
        """Open a UTF-8 text file in the folder."""
        file = open(self.path(name), "w", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        self._closers.append(file)
        return file

    def json(self, name: str, value: object) -> None:
        """Write a JSON file in the folder."""
        self.text(name).write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


# Columns whose values repeat. The others are long texts: a dictionary would store each of them once, and statistics
# would put two of them into the footer.
_REPETITIVE = [
    *("data_source", "ability", "prompt.list.element.role", "target.list.element.role"),
    *("reward_model.style", "extra_info.split", "extra_info.level"),
]


class ParquetFile:
    """A parquet file that is written batch by batch in row groups of bounded size; the same rows give the same bytes.

    A thread encodes and compresses one row group while the next one is made.
    """

    def __init__(self, path: Path):
        self._writer = pq.ParquetWriter(
            path,
            SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=_REPETITIVE,
            write_statistics=_REPETITIVE,
            store_schema=False,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parquet")
        self._writing: Future[None] | None = None
        self._pending: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch of `SCHEMA`."""
        self._pending.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= ROWS_PER_GROUP or self._bytes >= BYTES_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            table = pa.Table.from_batches(self._pending, SCHEMA)
            self._pending, self._rows, self._bytes = [], 0, 0
            self._wait()
            self._writing = self._thread.submit(self._writer.write_table, table, row_group_size=table.num_rows)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Write the pending rows and the footer."""
        try:
            if self._writer.is_open:
                self._flush()
                self._wait()
        finally:
            self._thread.shutdown()
            self._writer.close()


def write_rows(folder: str | os.PathLike[str], files: dict[str, Iterable[Row]]) -> None:
    """Write rows to parquet files, all of them or none.

    This is for sets that fit in memory; `pipeline.run` streams.

    Args:
        folder: created if it does not exist.
        files: rows by file name.

    Raises:
        OSError: the folder cannot be written to; its earlier contents are untouched.
    """
    with OutputFolder(folder) as output:
        for name, rows in files.items():
            file = output.parquet(name)
            rows = list(rows)
            for start in range(0, len(rows), ROWS_PER_GROUP):
                file.write(to_batch(rows[start : start + ROWS_PER_GROUP]))


def explain(error: OSError, folder: Path) -> OSError:
    """Return an error with the same errno that says what it means for the folder."""
    what = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is exhausted",
        errno.EFBIG: "the file size limit is reached",
    }
    message = f"{folder}: {what.get(error.errno or 0, error.strerror or str(error))}; the files in it are unchanged"
    return OSError(error.errno, message)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
