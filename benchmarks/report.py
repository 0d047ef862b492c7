"""Shared by all benchmarks: reports in Markdown, medians with their range, and the choice of cores."""

import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Restrict this process and the processes it starts to its first cores.

    Args:
        count: number of cores.
    """
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(all_cores)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


@dataclass(frozen=True)
class Spread:
    """Median and range of several turns."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the spread of one or more values."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, decimals: int) -> str:
        """Format as `median (lowest to highest)`."""
        return f"{self.median:,.{decimals}f} ({self.low:,.{decimals}f} to {self.high:,.{decimals}f})"


class Report:
    """Collects lines of Markdown and prints each at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str = "") -> None:
        """Add a line or paragraph."""
        self.lines.append(line)
        print(line, flush=True)

    def table(self, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
        """Add a table."""
        self.add("| " + " | ".join(header) + " |")
        self.add("|" + "---|" * len(header))
        for row in rows:
            self.add("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |")
        self.add()
