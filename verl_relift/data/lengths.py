"""How long the demonstrations of training files are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from .fields import question_chat, target_text
from .sources import batches
from .tokens import TokenCounter

SAMPLE = 1000  # rows that are tokenized, evenly spaced


@dataclass(frozen=True)
class Lengths:
    """Of the demonstrations of training files, from a sample of rows."""

    share: float  # of the rows that have one that is not too long
    tokens: float  # of one with its prompt, on average


def demonstration_lengths(files: Sequence[str], tokenizer: str, column: str, max_tokens: int) -> Lengths:
    """Measure the demonstrations of training files.

    Args:
        files: paths of parquet files.
        tokenizer: a folder or a hub id.
        column: with the demonstrations.
        max_tokens: longer ones are not used.

    Raises:
        DataError: the tokenizer cannot be loaded, or a row is not as it must be.
        OSError: a file cannot be read.
    """
    counter = TokenCounter.load(tokenizer)
    opened = [pq.ParquetFile(Path(file).expanduser()) for file in files]
    stride = max(1, sum(file.metadata.num_rows for file in opened) // SAMPLE)
    rows = (row for file in opened for batch in batches(file, ["prompt", column]) for row in batch.to_pylist())
    sampled = [row for place, row in enumerate(rows) if place % stride == 0]
    targets = counter.targets([target_text(row.get(column)) for row in sampled])
    prompts = counter.prompts([question_chat(row["prompt"], "prompt") for row in sampled])
    used = [prompt + target for prompt, target in zip(prompts, targets, strict=True) if 0 < target <= max_tokens]
    return Lengths(len(used) / len(sampled) if sampled else 0.0, sum(used) / len(used) if used else 0.0)
