"""The column with hints: for each question a list of texts, from the one that says least to the one that says most."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def hint_problems(files: Sequence[str], column: str, key: str) -> Iterator[str]:
    """Yield a line for each training file without hints.

    Args:
        files: paths of parquet files.
        column: name of the column.
        key: the setting that names it.
    """
    form = "a list of texts for each question, from the one that says least to the one that says most"
    for file in files:
        table = pq.ParquetFile(Path(file).expanduser())
        schema = table.schema_arrow
        if column not in schema.names:
            yield f"{key}={column}: {file} has no such column; add it with {form}"
            continue
        kind = schema.field(column).type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not _is_text(kind.value_type):
            yield f"{key}={column}: in {file} it is {kind}; it must be {form}"
            continue
        batches = table.iter_batches(columns=[column])
        if not any(pc.sum(pc.list_value_length(batch.column(0))).as_py() for batch in batches):
            yield f"{key}={column}: {file} has a hint in no row; add it with {form}"


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
