"""Makes questions, base models and the demonstrations of supervised cells, once per study."""

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.reproduce.study import Base, Pool, Task
from data_preprocess.arithmetic import Problem, make_split, to_row
from data_preprocess.output import write_rows
from verl_relift.data.schema import Row

TRAIN, TEST, PRETRAIN = "train.parquet", "test.parquet", "pretrain.parquet"
HARDEST = "hardest"


def make_data(task: Task, folder: Path) -> None:
    """Make training, evaluation and pretraining questions if they do not exist."""
    if (folder / TEST).exists():
        return
    split = make_split(
        task.seed,
        task.train_size,
        task.eval_size,
        train_shares=task.train_shares,
        extra_levels=task.extra_levels,
    )
    sets = {
        TRAIN: _shorten(split.train, task, "train"),
        TEST: split.test,
        PRETRAIN: _shorten(split.pretrain, task, "pretrain"),
    }
    rows = {
        name: [to_row(question, i, name.removesuffix(".parquet")) for i, question in enumerate(questions)]
        for name, questions in sets.items()
    }
    rows[TRAIN] = _withhold(rows[TRAIN], task)
    write_rows(folder, rows)


def _shorten(questions: Sequence[Problem], task: Task, name: str) -> list[Problem]:
    """Return the questions, a share of them without the steps of their solution."""
    chosen = _sample(range(len(questions)), task.terse, f"terse-{name}-{task.seed}")
    return [replace(question, steps=()) if i in chosen else question for i, question in enumerate(questions)]


def _withhold(rows: Sequence[Row], task: Task) -> list[Row]:
    """Return the rows without demonstrations, except for a share of the rows of some levels."""
    levels = task.demonstrated_levels or tuple(task.train_shares)
    places = [i for i, row in enumerate(rows) if row.level in levels]
    kept = _sample(places, task.demonstrated, f"demonstrated-{task.seed}")
    return [row if i in kept else replace(row, target=None) for i, row in enumerate(rows)]


def _sample(places: Sequence[int], share: float, seed: str) -> set[int]:
    return set(random.Random(seed).sample(places, round(share * len(places))))


def make_base(base: Base, data: Path, folder: Path) -> None:
    """Pretrain a base model if it does not exist."""
    if (folder / "config.json").exists():
        return
    command = [sys.executable, "-m", "verl_relift.quickstart.base_model", "--data", str(data), "--output", str(folder)]
    command += ["--seed", str(base.seed), "--steps", str(base.steps)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def choose(train: pa.Table, pool: Pool, count: int, seed: int) -> pa.Table:
    """Return the rows that supervised fine-tuning gets.

    Args:
        train: the training questions.
        pool: the demonstrations to draw from; `Pool.ALL` returns all of them.
        count: number of rows to draw; if there are fewer, all of them.
        seed: seed of the draw.

    Raises:
        ValueError: `count` is 0, or the pool is empty.
    """
    rows = train.to_pylist()
    places = [i for i, row in enumerate(rows) if row["target"] is not None]
    if pool is Pool.SAME_NUMBER_HARDEST:
        places = [i for i in places if rows[i]["extra_info"]["level"] == HARDEST]
    if pool is Pool.ALL:
        return train.take(places)
    if not (count and places):
        raise ValueError(f"cannot draw {count} demonstrations from the pool {pool} of {len(places)}")
    return train.take(random.Random(f"{pool}-{seed}").sample(places, min(count, len(places))))


def write_choice(train: Path, pool: Pool, count: int, seed: int, file: Path) -> int:
    """Write the rows of `choose` to a parquet file and return their number."""
    chosen = choose(pq.read_table(train), pool, count, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(chosen, file)
    return len(chosen)
