"""Whether several parquet files can be read as one data set, as the data sets of training and validation are."""

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from .findings import FileSummary, Finding, Kind, Report


def compare(report: Report) -> None:
    """Report columns whose types differ between files that are concatenated: those of training, those of validation."""
    for validation in (False, True):
        _compare([summary for summary in report.files if summary.validation == validation], report)


def _compare(summaries: Sequence[FileSummary], report: Report) -> None:
    first: dict[str, tuple[pa.DataType, str]] = {}
    for summary in summaries:
        if summary.counts[Kind.UNREADABLE]:
            continue
        differing: dict[str, list[str]] = defaultdict(list)
        for column in pq.read_schema(summary.file):
            kind, file = first.setdefault(column.name, (column.type, summary.file))
            if not _align(kind, column.type):
                differing[file].append(f"{column.name} ({_shown(column.type)}, there {_shown(kind)})")
        for file, columns in differing.items():
            problem = f"cannot be read together with {file}: {', '.join(columns)}"
            report.add(summary, Finding(Kind.SCHEMAS_DIFFER, problem, summary.file))


def _align(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether `datasets.concatenate_datasets` takes two columns for one.

    Their types are equal, one is of nulls only, or they are structures whose common fields align.
    """
    if pa.types.is_null(one) or pa.types.is_null(other) or one.equals(other):
        return True
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _align(one.value_type, other.value_type)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        common = {field.name for field in one} & {field.name for field in other}
        return all(_align(one.field(name).type, other.field(name).type) for name in common)
    return False


def _shown(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else text[:57] + "..."
