"""Makes the command that runs a cell, and the record from what the command leaves."""

import json
import math
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import safe_open

from benchmarks.machine import machine
from benchmarks.reproduce import task
from benchmarks.reproduce.records import Compute, Point, Record, flops
from benchmarks.reproduce.study import BATCH, Cell, Kind, Pool, Study, StudyError
from verl_relift.quickstart.summary import PACKAGES

POINTS = 4  # points of a learning curve, the last one at the end
MAX_TOKENS = 64  # length limit of a response, as in training
# The model is too small for two ranks to pay off; a second concurrent cell makes better use of a core.
ONE_WORKER = (
    "trainer.n_gpus_per_node=1",
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
)
# The learning curve and the final evaluation are validations of the training run. They use the same vLLM, weights and
# grader as `verl_relift.evaluate` without starting the stack again.
GREEDY_VALIDATION = (
    "actor_rollout_ref.rollout.val_kwargs.do_sample=false",
    "actor_rollout_ref.rollout.val_kwargs.temperature=0",
    "actor_rollout_ref.rollout.val_kwargs.n=1",
)
_ACCURACY = re.compile(r"val-core/arithmetic/(?P<level>\w+)/acc/mean@1$")


@dataclass(frozen=True)
class Folders:
    """The folders of a study: `data`, `bases/<name>`, `runs/<cell>`, `cells/<cell>.json`.

    Attributes:
        root: folder of the study.
    """

    root: Path

    @property
    def data(self) -> Path:
        """Folder of the questions."""
        return self.root / "data"

    def base(self, cell: Cell) -> Path:
        """Return the folder of a cell's base model."""
        return self.root / "bases" / cell.base.name

    def run(self, name: str) -> Path:
        """Return the folder of a cell's run."""
        return self.root / "runs" / name

    def record(self, name: str) -> Path:
        """Return the file of a cell's record."""
        return self.root / "cells" / f"{name}.json"


def settings(study: Study, cell: Cell) -> dict[str, Any]:
    """Return everything that the numbers of a cell depend on, as JSON types."""
    method = asdict(cell.method)
    del method["title"]
    return json.loads(
        json.dumps(
            {
                "method": method,
                "base": asdict(cell.base),
                "seed": cell.seed,
                "steps": study.steps,
                "task": asdict(study.task),
                "overrides": [*ONE_WORKER, *GREEDY_VALIDATION],
            }
        )
    )


def command(study: Study, cell: Cell, folders: Folders, before: Record | None) -> list[str]:
    """Return the arguments of `python -m` that run a cell, and write the demonstrations of a supervised cell.

    Args:
        study: the study.
        cell: the cell.
        folders: folders of the study.
        before: record of the cell that this one needs, or None.

    Raises:
        StudyError: the weights to start from are missing.
    """
    run, test = folders.run(cell.name), folders.data / task.TEST
    if cell.method.kind is Kind.EVALUATE:
        return [
            *("verl_relift.evaluate", "--model", str(folders.base(cell)), "--data", str(test), "--output", str(run)),
            *("--n", "1", "--temperature", "0", "--max-tokens", str(MAX_TOKENS)),
        ]
    train, steps = folders.data / task.TRAIN, study.steps
    if cell.method.kind is Kind.SFT:
        wanted = 0 if cell.method.pool is Pool.ALL else before.demonstrations_used
        train = run / "demonstrations.parquet"
        count = task.write_choice(folders.data / task.TRAIN, cell.method.pool, wanted, cell.seed, train)
        steps = cell.method.passes * count // BATCH
    model = folders.base(cell)
    if cell.method.starts_there:
        model = next(folders.run(before.cell).glob("global_step_*/actor/model/huggingface"), None)
        if model is None:
            raise StudyError(
                f"{folders.run(before.cell)} has no weights for {cell.name} to start from; remove "
                f"{folders.record(before.cell)} to train them again"
            )
    followed = any(m.starts_there and m.after == cell.method.name for m in study.methods)
    return [
        *("verl_relift.train", "--config-name", "quickstart"),
        f"data.train_files={train}",
        f"data.val_files={test}",
        f"data.seed={cell.seed}",
        f"actor_rollout_ref.model.path={model}",
        f"trainer.default_local_dir={run}",
        f"trainer.total_training_steps={steps}",
        f"trainer.test_freq={math.ceil(steps / POINTS)}",
        f"trainer.save_freq={steps if followed else -1}",
        *ONE_WORKER,
        *GREEDY_VALIDATION,
        *cell.method.overrides,
    ]


def record(study: Study, cell: Cell, folders: Folders, before: Record | None, seconds: float) -> Record:
    """Return the record of a cell whose command has succeeded.

    Args:
        study: the study.
        cell: the cell.
        folders: folders of the study.
        before: record of the cell that this one needs, or None.
        seconds: wall-clock seconds of the command.
    """
    run, test = folders.run(cell.name), pq.read_table(folders.data / task.TEST)
    parameters = count_parameters(folders.base(cell))
    earlier = before if cell.method.starts_there else None
    if cell.method.kind is Kind.EVALUATE:
        steps: list[dict] = []
        curve = [Point(0, 0.0, _evaluated(run))]
    else:
        steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        curve = list(learning_curve(steps, parameters, earlier.compute.flops if earlier else 0.0))
    used = int(steps[-1].get("relift/demonstrations_used", 0)) if steps else 0
    sources = test["data_source"].to_pylist()
    return Record(
        cell=cell.name,
        study=study.name,
        method=cell.method.name,
        base=cell.base.name,
        seed=cell.seed,
        settings=settings(study, cell),
        levels=curve[-1].levels,
        questions={level: sources.count(f"arithmetic/{level}") for level in curve[-1].levels},
        curve=tuple(curve),
        compute=compute(steps, parameters, earlier.compute if earlier else None),
        demonstrations_used=used + (earlier.demonstrations_used if earlier else 0),
        demonstrations_available=len(pq.read_table(folders.data / task.TRAIN)["target"].drop_null()),
        seconds=round(seconds, 1),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=machine(),
        versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    )


def compute(steps: Sequence[dict], parameters: int, earlier: Compute | None = None) -> Compute:
    """Return the compute of a run.

    Args:
        steps: lines of its metrics.jsonl.
        parameters: number of the model's parameters.
        earlier: compute of the cell that it started from, which is added, or None.
    """
    rl = [line for line in steps if "perf/total_num_tokens" in line]
    trained = sum(line["perf/total_num_tokens"] for line in rl)
    generated = round(sum(map(_generated, rl)))
    log_probs = sum(line["perf/total_num_tokens"] for line in rl if "timing_s/old_log_prob" in line)
    last = steps[-1] if steps else {}
    sft_tokens = int(last.get("relift/sft_tokens", 0))
    own = Compute(
        rl_steps=len(rl),
        sft_updates=int(last.get("relift/sft_updates", 0)),
        rl_tokens=trained,
        sft_tokens=sft_tokens,
        generated_tokens=generated,
        log_prob_tokens=log_probs,
        flops=flops(parameters, trained + sft_tokens, generated, log_probs),
    )
    if earlier is None:
        return own
    return Compute(**{name: value + getattr(earlier, name) for name, value in asdict(own).items()})


def learning_curve(steps: Sequence[dict], parameters: int, offset: float) -> Iterator[Point]:
    """Yield a point for every validation of a run.

    Args:
        steps: lines of its metrics.jsonl.
        parameters: number of the model's parameters.
        offset: floating-point operations before its first step.
    """
    for place, line in enumerate(steps, 1):
        levels = {match["level"]: value for name, value in line.items() if (match := _ACCURACY.match(name))}
        if levels:
            yield Point(line["step"], offset + compute(steps[:place], parameters).flops, levels)


def _generated(line: dict) -> float:
    """Return the response tokens of a step."""
    response = line["response_length/mean"]
    return line["perf/total_num_tokens"] * response / (response + line["prompt_length/mean"])


def _evaluated(folder: Path) -> dict[str, float]:
    sources = json.loads((folder / "summary.json").read_text())["sources"]
    return {name.removeprefix("arithmetic/"): source["accuracy"] for name, source in sources.items()}


def count_parameters(model: Path) -> int:
    """Return the number of parameters in a Hugging Face folder."""
    with safe_open(model / "model.safetensors", framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
