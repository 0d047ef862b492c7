"""Statistics of one run for `stats.json`: rows read, kept and left out by reason, lengths, rows by source and level."""

import json
import platform
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import IO, Any

from .errors import DataError, Reason
from .schema import Row

# Left edges of the length histogram's bins; the last bin is open.
EDGES = (0, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768)
_EXCERPT = 200  # characters of a rejected row that rejected.jsonl shows


class Ledger:
    """Counts the rows of one output file, and lists in `rejected.jsonl` what is left out: rows, demonstrations.

    Args:
        file: the name of the output file.
        rejected: the open `rejected.jsonl`.
        unit: unit of the lengths, "tokens" or "characters".
    """

    def __init__(self, file: str, rejected: IO[str], unit: str):
        self.file, self.unit = file, unit
        self.rows_in = self.kept = self.demonstrations = self.demonstrations_removed = 0
        self.left_out: Counter[Reason] = Counter()
        self.sources: Counter[str] = Counter()
        self.levels: Counter[str] = Counter()
        self.prompts, self.targets = array("q"), array("q")
        self._rejected = rejected

    def leave_out(self, error: DataError, excerpt: str = "") -> None:
        """Count and list a row that is left out.

        Args:
            error: the reason and the place of the row.
            excerpt: the row's text; its first 200 characters are listed.
        """
        self.left_out[error.reason] += 1
        self._list("row", error, excerpt)

    def remove_demonstration(self, error: DataError) -> None:
        """Count and list a demonstration that is left out of a row that stays; the error's excerpt is its text."""
        self.demonstrations_removed += 1
        self._list("target", error, error.excerpt)

    def _list(self, what: str, error: DataError, excerpt: str) -> None:
        entry = {
            "output": self.file,
            "left_out": what,
            "file": error.file,
            "row": error.row,
            "column": error.column,
            "reason": error.reason,
            "problem": error.problem,
            "excerpt": excerpt[:_EXCERPT],
        }
        self._rejected.write(json.dumps(entry, ensure_ascii=True) + "\n")

    def keep(self, rows: Sequence[Row]) -> None:
        """Count rows that are kept. Their lengths are tokens if the rows have them, else characters."""
        self.kept += len(rows)
        self.sources.update(row.data_source for row in rows)
        self.levels.update(row.level for row in rows if row.level is not None)
        for row in rows:
            prompt, target = row.tokens or row.characters
            self.prompts.append(prompt)
            if row.target is not None:
                self.targets.append(target)
        self.demonstrations = len(self.targets)

    def summary(self) -> dict[str, Any]:
        """Return the counts as `stats.json` holds them."""
        return {
            "rows_in": self.rows_in,
            "kept": self.kept,
            "left_out": {reason.value: count for reason, count in sorted(self.left_out.items())},
            "demonstrations": self.demonstrations,
            "demonstrations_removed": self.demonstrations_removed,
            "data_sources": dict(sorted(self.sources.items())),
            "levels": dict(sorted(self.levels.items())),
            "length_unit": self.unit,
            "prompt_length": length_summary(self.prompts),
            "target_length": length_summary(self.targets),
        }


def length_summary(lengths: Sequence[int]) -> dict[str, Any] | None:
    """Return minimum, median, 95th percentile, maximum, total and histogram; None if there are no lengths."""
    if not lengths:
        return None
    ordered = sorted(lengths)
    counts = [0] * len(EDGES)
    for length in ordered:
        counts[bisect_right(EDGES, length) - 1] += 1
    last = len(ordered) - 1
    return {
        "min": ordered[0],
        "median": ordered[last // 2],
        "p95": ordered[int(last * 0.95)],
        "max": ordered[-1],
        "total": sum(ordered),
        "histogram": {"from": list(EDGES), "rows": counts},
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the packages that shape the output."""
    return {"python": platform.python_version()} | {name: version(name) for name in sorted(packages)}
