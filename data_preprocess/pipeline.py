"""The pipeline from input to parquet: read, map, filter, write, count.

Rows stream through in batches. All files appear together when they are complete.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tqdm import tqdm

from verl_relift.data import filters
from verl_relift.data.background import read_ahead
from verl_relift.data.errors import DataError, Reason, TargetRemoved
from verl_relift.data.filters import Filter, Verify
from verl_relift.data.overlap import NGramIndex
from verl_relift.data.schema import Row, to_batch, validate
from verl_relift.data.sources import MAX_FIELD_BYTES, Source
from verl_relift.data.stats import Ledger, versions
from verl_relift.data.tokens import TokenCounter

from .output import OutputFolder, ParquetFile

MapRow = Callable[[dict[str, Any], int, str], Row]  # (record, index, split) -> row; raises DataError
BATCH_ROWS = 1000
BATCH_CHARACTERS = 8 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """One parquet file to make.

    Attributes:
        file: its name.
        source: the input.
        to_row: the function from (record, index, split) to row.
        columns: the columns of a parquet input that the mapping reads; None for all.
    """

    file: str
    source: Source
    to_row: MapRow
    columns: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What a user can ask of any data set: the flags of the same names on the command line."""

    on_error: str = "fail"
    dedup: bool = False
    verify: Verify | None = None
    difficulty: Sequence[str] = ()
    limit: int | None = None
    seed: int | None = None
    tokenizer: str | None = None
    max_prompt_tokens: int | None = None
    max_target_tokens: int | None = None
    max_field_bytes: int = MAX_FIELD_BYTES
    contamination: NGramIndex | None = None
    progress: bool = False
    flags: dict[str, Any] = field(default_factory=dict)  # recorded in stats.json


def run(name: str, jobs: Sequence[Job], options: Options, folder: str) -> dict[str, Any]:
    """Make the files of `jobs`, `rejected.jsonl` and `stats.json` in `folder`, all of them or none.

    Args:
        name: the name of the data set, for `stats.json`.
        jobs: one per parquet file.
        options: what the user asks for.
        folder: created if it does not exist.

    Returns:
        The contents of `stats.json`.

    Raises:
        DataError: the input has a fault and `options.on_error` is "fail", or a file cannot be read at all.
        OSError: the output cannot be written; the earlier contents of the folder are untouched.
    """
    counter = TokenCounter.load(options.tokenizer) if options.tokenizer else None
    with OutputFolder(folder) as output:
        rejected = output.text("rejected.jsonl")
        ledgers = []
        for job in jobs:
            ledger = Ledger(job.file, rejected, "tokens" if counter else "characters")
            _make(job, options, counter, ledger, output.parquet(job.file))
            ledgers.append(ledger)
        _require_rows(jobs, ledgers)
        packages = {"verl_relift", "pyarrow"} | ({"transformers", "tokenizers"} if counter else set())
        stats = {
            "data_set": name,
            "sources": {job.file: job.source.describe() for job in jobs},
            "flags": options.flags,
            "versions": versions(packages | ({"math-verify"} if options.verify else set())),
            "files": {ledger.file: ledger.summary() for ledger in ledgers},
        }
        output.json("stats.json", stats)
    return stats


def _require_rows(jobs: Sequence[Job], ledgers: Sequence[Ledger]) -> None:
    """Check that a row is left.

    Raises:
        DataError: the input is empty, or every row was left out.
    """
    if any(ledger.kept for ledger in ledgers):
        return
    read = sum(ledger.rows_in for ledger in ledgers)
    counts = sum((Counter(ledger.left_out) for ledger in ledgers), Counter())
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    problem = f"none of {read:,} rows is left ({left_out})" if read else "the input has no rows"
    remedy = "relax the filters or mend the input" if read else "check --input"
    place = ", ".join(name for job in jobs for name in job.source.describe())
    raise DataError(Reason.UNREADABLE, problem, file=place, remedy=remedy)


@dataclass(slots=True)
class _Batch:
    """Rows that remain, each with its place (file, row), and what is left out: rows with an excerpt, demonstrations."""

    rows: list[Row] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)
    left_out: list[tuple[DataError, str]] = field(default_factory=list)
    demonstrations: list[TargetRemoved] = field(default_factory=list)
    characters: int = 0


def _make(job: Job, options: Options, counter: TokenCounter | None, ledger: Ledger, file: ParquetFile) -> None:
    sample = Sample(options.limit, options.seed) if options.limit is not None and options.seed is not None else None

    def write(rows: list[Row]) -> None:
        ledger.keep(rows)
        file.write(to_batch(rows))

    with (
        tqdm(desc=job.file, unit=" rows", total=job.source.count(), disable=None if options.progress else True) as bar,
        closing(_filtered(job, options, counter)) as batches,
    ):
        for batch in batches:
            bar.update(len(batch.rows) + len(batch.left_out))
            _count(batch, options, ledger)
            rows = batch.rows
            if sample is not None:
                ledger.left_out[Reason.NOT_SAMPLED] += sample.offer(rows)
                continue
            if options.limit is not None:
                room = options.limit - ledger.kept
                ledger.left_out[Reason.NOT_SAMPLED] += len(rows[room:])
                rows = rows[:room]
            write(rows)
            if ledger.kept == options.limit:
                break
    if sample is not None:
        rows = sample.rows()
        for start in range(0, len(rows), BATCH_ROWS):
            write(rows[start : start + BATCH_ROWS])


def _filtered(job: Job, options: Options, counter: TokenCounter | None) -> Iterator[_Batch]:
    """Yield the source's batches after all filters, which run in order of their cost.

    The tokenizer and the grader release Python's global lock, so each gets a thread that overlaps with reading and
    writing. Without either of them, threads would only compete for the lock.
    """
    batches = map(partial(_apply, _cheap_filters(job, options)), _read(job, options.max_field_bytes))
    if counter is not None:
        keep = filters.within_tokens(counter, options.max_prompt_tokens, options.max_target_tokens)
        batches = map(partial(_apply, [keep]), read_ahead(batches))
    if options.verify is not None:
        batches = map(partial(_apply, [filters.verified(options.verify)]), read_ahead(batches))
    yield from read_ahead(batches) if counter is not None or options.verify is not None else batches


def _read(job: Job, max_field_bytes: int) -> Iterator[_Batch]:
    """Yield the source's records as rows, in batches of bounded size."""
    batch = _Batch()
    for index, record in enumerate(job.source.records(job.columns, max_field_bytes)):
        try:
            if record.error is not None:
                raise record.error
            row = job.to_row(record.value, index, job.source.split)
            validate(row)
        except DataError as error:
            excerpt = error.excerpt if record.value is None else str(record.value)[:200]
            batch.left_out.append((error.at(record.file, record.row), excerpt))
        else:
            batch.rows.append(row)
            batch.places.append((record.file, record.row))
            batch.characters += sum(row.characters)
        if len(batch.rows) + len(batch.left_out) >= BATCH_ROWS or batch.characters >= BATCH_CHARACTERS:
            yield batch
            batch = _Batch()
    yield batch


def _cheap_filters(job: Job, options: Options) -> list[Filter]:
    """Return the filters that need neither a tokenizer nor a grader."""
    chosen = [filters.unique_ids()]
    if options.difficulty:
        chosen.append(filters.of_difficulty(options.difficulty))
    if options.dedup:
        chosen.append(filters.unique_questions())
    if options.contamination is not None and job.source.split == "train":
        chosen.append(filters.not_in(options.contamination))
    return chosen


def _apply(chosen: Sequence[Filter], batch: _Batch) -> _Batch:
    """Apply filters to `batch` in place and return it."""
    for keep in chosen:
        verdicts = keep(batch.rows)
        rows, places, batch.rows, batch.places = batch.rows, batch.places, [], []
        for row, place, verdict in zip(rows, places, verdicts, strict=True):
            if isinstance(verdict, TargetRemoved):
                batch.demonstrations.append(verdict.at(*place))
            if verdict is None or isinstance(verdict, TargetRemoved):
                batch.rows.append(row)
                batch.places.append(place)
            else:
                batch.left_out.append((verdict.at(*place), row.question))
    return batch


def _count(batch: _Batch, options: Options, ledger: Ledger) -> None:
    """Record the rows of a batch in the ledger.

    Raises:
        DataError: a row has a fault and `options.on_error` is "fail".
    """
    ledger.rows_in += len(batch.rows) + len(batch.left_out)
    for removed in batch.demonstrations:
        ledger.remove_demonstration(removed)
    for error, excerpt in batch.left_out:
        if error.reason.is_fault and options.on_error == "fail":
            raise error
        ledger.leave_out(error, excerpt)


class Sample:
    """A uniform random sample of at most `size` rows, in their original order. Only the sample is held in memory."""

    def __init__(self, size: int, seed: int):
        self._size, self._rng = size, random.Random(seed)
        self._heap: list[tuple[float, int, Row]] = []
        self._offered = 0

    def offer(self, rows: Sequence[Row]) -> int:
        """Offer rows to the sample.

        Returns:
            The number of rows that are now excluded for good, among these and the earlier ones.
        """
        before = len(self._heap)
        for row in rows:
            # The rows with the smallest random keys stay. The head of the heap has the largest of these keys.
            entry = (-self._rng.random(), self._offered, row)
            self._offered += 1
            if len(self._heap) < self._size:
                heapq.heappush(self._heap, entry)
            elif self._heap and entry > self._heap[0]:
                heapq.heapreplace(self._heap, entry)
        return len(rows) - (len(self._heap) - before)

    def rows(self) -> list[Row]:
        """Return the sample."""
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[1])]
