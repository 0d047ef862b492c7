"""Makes a setting's questions, once, and finds its base model.

The questions are for training, for selection (the search) and for evaluation.
No question is in two of the files. The search sees the selection questions only, and no table does.
"""

import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.evidence.design import Setting
from benchmarks.reproduce import task as arithmetic
from verl_relift.evaluate.tokens import inspect_model
from verl_relift.pretrained.fetch import fetch
from verl_relift.pretrained.models import SMOLLM2

BASES = Path(__file__).parent / "bases"  # base models of the arithmetic task, see README.md there
SELECTION = 100  # selection questions of a level, or of a set of word problems
EVALUATION = 311  # evaluation questions of a set of word problems: all of SVAMP's
# Where word problems are read: in this repository, or on the hub.
SOURCES = {"svamp": "examples/data/svamp", "gsm8k": "openai/gsm8k"}


@dataclass(frozen=True)
class Files:
    """Files of a setting.

    Attributes:
        folder: where they are.
        sources: where sets of word problems are read, by name.
    """

    folder: Path
    sources: dict[str, str]

    @property
    def train(self) -> Path:
        """Training questions."""
        return self.folder / "train.parquet"

    @property
    def selection(self) -> Path:
        """Questions of the search."""
        return self.folder / "selection.parquet"

    @property
    def test(self) -> Path:
        """Evaluation questions."""
        return self.folder / "evaluation.parquet"


def prepare(setting: Setting, files: Files) -> None:
    """Make what does not exist."""
    if setting.task is not None:
        arithmetic.make_data(setting.task, files.folder)
        if not files.test.exists():
            selection, rest = divide(pq.read_table(files.folder / arithmetic.TEST), SELECTION)
            pq.write_table(selection, files.selection)
            pq.write_table(rest, files.test)
    elif not files.test.exists():
        _word_problems(setting, files)


def model(setting: Setting) -> Path:
    """Return the folder of a setting's base model, downloading the pretrained one if need be."""
    return BASES / setting.base.name if setting.base is not None else fetch(SMOLLM2)


def base_hash(setting: Setting) -> str:
    """Return the SHA-256 of the weights that a setting's cells start from, or of the file that they are made of."""
    return _weights_hash(BASES / setting.base.name) if setting.base is not None else SMOLLM2.sha256


@cache
def _weights_hash(folder: Path) -> str:
    return inspect_model(folder).weights_sha256


def divide(questions: pa.Table, count: int) -> tuple[pa.Table, pa.Table]:
    """Return the first `count` questions of each source, at most a third of them, and the others."""
    places = defaultdict(list)
    for place, source in enumerate(questions["data_source"].to_pylist()):
        places[source].append(place)
    first = {place for found in places.values() for place in found[: min(count, len(found) // 3)]}
    return questions.take(sorted(first)), questions.take([p for p in range(len(questions)) if p not in first])


def _word_problems(setting: Setting, files: Files) -> None:
    """Convert both sets; the other one gives evaluation questions only."""
    evaluation = []
    for name, source in files.sources.items():
        folder = files.folder / name
        command = [sys.executable, "-m", f"data_preprocess.{name}", "--input", source, "--output", str(folder)]
        subprocess.run([*command, "--template", "boxed", "--verify", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        evaluation.append(_sample(pq.read_table(folder / "test.parquet"), EVALUATION, name))
        if name == setting.train:
            shuffled = _sample(pq.read_table(folder / "train.parquet"), None, name)
            pq.write_table(shuffled.slice(0, SELECTION), files.selection)
            pq.write_table(shuffled.slice(SELECTION), files.train)
    pq.write_table(pa.concat_tables(evaluation), files.test)


def _sample(questions: pa.Table, count: int | None, seed: str) -> pa.Table:
    """Return `count` questions in an order drawn with a seed; None: all."""
    places = list(range(len(questions)))
    Random(seed).shuffle(places)
    return questions.take(places[:count])
