"""Makes the command that runs a cell, and the record from what the command leaves."""

import dataclasses
import json
import platform
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.evidence import tasks
from benchmarks.evidence.design import Cell, Kind, Knob, Study, trial_name
from benchmarks.evidence.records import Record, measures, path_of, read
from benchmarks.evidence.tasks import Files
from benchmarks.machine import machine
from benchmarks.reproduce.cell import GREEDY_VALIDATION, ONE_WORKER, compute, count_parameters
from benchmarks.reproduce.records import Compute, flops
from benchmarks.reproduce.study import StudyError
from verl_relift.quickstart.summary import PACKAGES
from verl_relift.run.budget import spent

_AT_THE_END = 100_000  # steps between checkpoints: a stage saves its last step
_JOINED = "method/demonstrations_joined"
TEMPERATURE = 0.6  # of answers that are sampled, which are those of settings with several


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a study's files are.

    Attributes:
        root: questions, base models, runs.
        records: folder of the records of all studies.
        sources: where sets of word problems are read, by name.
        untuned: whether every knob has its middle value, without a search.
    """

    root: Path
    records: Path
    sources: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(tasks.SOURCES))
    untuned: bool = False

    def files(self, cell: Cell) -> Files:
        """Return the files of a cell's setting; the early one has those of the setting that it shortens."""
        return Files(self.root / "settings" / cell.setting.name.removesuffix("_early"), dict(self.sources))

    def run(self, name: str) -> Path:
        """Return the folder of a cell's run."""
        return self.root / "runs" / name

    def record(self, study: Study, name: str) -> Record | None:
        """Return the record of a cell, or None."""
        path = path_of(self.records, study.name, name)
        return read(path) if path.exists() else None


def chosen(study: Study, cell: Cell, place: Place) -> dict[str, float]:
    """Return the value of each of a cell's knobs: the best of its trials; of equals, the smaller.

    Raises:
        StudyError: a trial is missing, or trials of a knob start from different base models.
    """
    values = {}
    for knob in cell.treatment.knobs:
        if cell.tried is not None and knob is cell.treatment.knobs[-1]:
            values[knob.name] = cell.tried
        elif place.untuned:
            values[knob.name] = knob.middle
        else:
            names = {value: trial_name(knob, value, study.settings[0]) for value in knob.values}
            found = {value: place.record(study, name) for value, name in names.items()}
            missing = [names[value] for value, record in found.items() if record is None]
            if missing:
                raise StudyError(f"{cell.name} needs the cell {missing[0]}, which is not done")
            if len({record.base for record in found.values()}) > 1:
                raise StudyError(f"{', '.join(names.values())} start from different base models; remove their records")
            values[knob.name] = best_value(knob, found)
    return values


def best_value(knob: Knob, trials: Mapping[float, Record]) -> float:
    """Return the value of a knob with the best trial; of equals, the smaller.

    Args:
        knob: the knob.
        trials: the record of each of its values.
    """
    return max(knob.values, key=lambda value: (selected_by(trials[value]), -value))


def selected_by(record: Record) -> float:
    """Return the accuracy by which the search compares trials: the average over the selection questions."""
    return record.accuracy(measures(record.right, record.settings["train"])["average"])


def overrides(cell: Cell, values: Mapping[str, float]) -> list[str]:
    """Return the key=value arguments of a cell that do not name files.

    Args:
        cell: the cell.
        values: of its knobs, by name.
    """
    treatment, setting = cell.treatment, cell.setting
    first = [f"trainer.total_training_steps={setting.supervised_steps}"] if not treatment.matches else []
    first.append("trainer.test_freq=-1")
    arguments = [*setting.overrides, *(setting.own_words if treatment.privileged else ())]
    arguments += treatment.overrides
    for knob in treatment.knobs:
        argument = f"{knob.key}={values[knob.name]!r}"
        stage_of_two = treatment.kind is Kind.STAGES and knob.key.startswith("method.")
        (first if stage_of_two else arguments).append(argument)
    if treatment.kind is Kind.STAGES:
        arguments.append(f"method.first.overrides=[{','.join(map(_quoted, first))}]")
    steps = setting.supervised_steps if treatment.supervised else setting.steps
    arguments += [f"trainer.total_training_steps={steps}", f"trainer.test_freq={steps}"]
    if not setting.train:
        arguments.append(f"trainer.save_freq={_AT_THE_END if treatment.kind is Kind.STAGES else -1}")
    if treatment.kind is Kind.EVALUATE:
        arguments += ["trainer.val_before_train=true", "trainer.val_only=true"]
    return [*arguments, *(ONE_WORKER if not setting.train else ()), *_sampling(cell), f"data.seed={cell.seed}"]


def _quoted(argument: str) -> str:
    return f"'{argument}'"


def _sampling(cell: Cell) -> tuple[str, ...]:
    if cell.setting.samples == 1 or cell.tried is not None:
        return GREEDY_VALIDATION
    val = "actor_rollout_ref.rollout.val_kwargs"
    return f"{val}.do_sample=true", f"{val}.temperature={TEMPERATURE}", f"{val}.n={cell.setting.samples}"


def settings(cell: Cell, values: Mapping[str, float]) -> dict[str, Any]:
    """Return everything that the numbers of a cell depend on, as JSON types."""
    setting, treatment = cell.setting, cell.treatment
    task = dataclasses.asdict(setting.task) if setting.task is not None else None
    base = dataclasses.asdict(setting.base) if setting.base is not None else None
    return json.loads(
        json.dumps(
            {
                "config": setting.config,
                "overrides": overrides(cell, values),
                "task": task,
                "base": base,
                "train": setting.train,
                "matches": treatment.matches,
                "by": treatment.by.value if treatment.matches else None,
            }
        )
    )


def command(study: Study, cell: Cell, place: Place) -> list[str]:
    """Return the arguments of `python -m` that run a cell.

    Raises:
        StudyError: a cell that it needs is not done.
    """
    files, treatment = place.files(cell), cell.treatment
    tasks.prepare(cell.setting, files)
    arguments = [
        *("verl_relift.train", "--config-name", cell.setting.config),
        f"data.train_files={files.train}",
        f"data.val_files={files.selection if cell.tried is not None else files.test}",
        f"actor_rollout_ref.model.path={tasks.model(cell.setting)}",
        f"trainer.default_local_dir={place.run(cell.name)}",
        *overrides(cell, chosen(study, cell, place)),
    ]
    if treatment.matches:
        arguments += [f"method.first.match={_spent(study, cell, place)}", f"method.first.by={treatment.by.value}"]
    return arguments


def _spent(study: Study, cell: Cell, place: Place) -> Path:
    """Write what the cell that this one matches has spent, from its record, and return the folder."""
    name = Cell(study.treatments[cell.treatment.matches], cell.setting, cell.seed).name
    matched = place.record(study, name)
    if matched is None:
        raise StudyError(f"{cell.name} needs the cell {name}, which is not done")
    if not matched.demonstrations:
        raise StudyError(f"{cell.name}: {name} trained on no demonstration, so there is nothing to match")
    folder = place.root / "spent" / name
    folder.mkdir(parents=True, exist_ok=True)
    line = {
        "relift/sft_demonstrations": matched.demonstrations,
        "relift/sft_tokens": matched.compute.sft_tokens,
        "method/second_round_tokens": matched.second_round_tokens,
    }
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def record(study: Study, cell: Cell, place: Place, seconds: float) -> Record:
    """Return the record of a cell whose command has succeeded."""
    run, files, treatment = place.run(cell.name), place.files(cell), cell.treatment
    model = tasks.model(cell.setting)
    stages = [run / "sft", run / "rl"] if treatment.kind is Kind.STAGES else [run]
    questions = files.selection if cell.tried is not None else files.test
    values = chosen(study, cell, place)
    greedy = cell.setting.samples == 1 or cell.tried is not None
    budgets = [] if treatment.kind is Kind.EVALUATE else [spent(stage) for stage in stages]
    return Record(
        cell=cell.name,
        study=study.name,
        setting=cell.setting.name,
        treatment=treatment.name,
        gate=treatment.gate,
        placement=treatment.placement,
        weight=treatment.weight,
        seed=cell.seed,
        tried=cell.tried,
        chosen=values,
        untuned=place.untuned,
        settings=settings(cell, values),
        samples=1 if greedy else cell.setting.samples,
        right=right_answers(stages[-1] / "validation", questions, model),
        compute=total_compute(
            [] if treatment.kind is Kind.EVALUATE else stages, count_parameters(model), cell.setting.rollouts
        ),
        demonstrations=round(sum(budget.demonstrations for budget in budgets)),
        second_round_tokens=round(sum(budget.sampled for budget in budgets)),
        seconds=round(seconds, 1),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=machine(),
        versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        base=tasks.base_hash(cell.setting),
    )


def total_compute(stages: Sequence[Path], parameters: int, rollouts: int) -> Compute:
    """Return the compute of runs, added up. Tokens of rollouts that a method leaves out were generated, too.

    Args:
        stages: their folders.
        parameters: number of the model's parameters.
        rollouts: of a step.
    """
    total = Compute(0, 0, 0, 0, 0, 0, 0.0)
    for stage in stages:
        steps = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
        found, budget = compute(steps, parameters), spent(stage)
        # Rows that joined a group are among the tokens of the RL update; those of a stream are not.
        joined = sum(line.get("method/demonstration_tokens", 0) for line in steps if _JOINED in line)
        supervised = round(budget.tokens - joined)
        sampled = sum(line["response_length/mean"] for line in steps if "perf/total_num_tokens" in line) * rollouts
        generated = round(sampled + budget.sampled)
        found = dataclasses.replace(
            found,
            sft_tokens=round(budget.tokens),
            generated_tokens=generated,
            flops=flops(parameters, found.rl_tokens + supervised, generated, found.log_prob_tokens),
        )
        total = Compute(*(a + b for a, b in zip(vars(total).values(), vars(found).values(), strict=True)))
    return total


def right_answers(folder: Path, questions: Path, model: Path) -> dict[str, str]:
    """Return, by data source, how many answers to each question are right, from a run's last validation.

    Args:
        folder: verl's dumps of validations, `STEP.jsonl`.
        questions: the parquet file that was validated on, whose order the digits have.
        model: folder with the tokenizer that made the prompts.

    Raises:
        StudyError: a question has no answer.
    """
    last = max(folder.glob("*.jsonl"), key=lambda path: int(path.stem))
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for line in map(json.loads, last.read_text().splitlines()):
        counts[line["input"]] += line["score"] >= 1.0
        seen[line["input"]] += 1
    rows = pq.read_table(questions, columns=["prompt", "data_source"]).to_pylist()
    texts = rendered([row["prompt"] for row in rows], model)
    asked = Counter(texts)  # a question that stands twice has twice as many answers
    digits: dict[str, list[str]] = defaultdict(list)
    for row, text in zip(rows, texts, strict=True):
        if not seen[text]:
            raise StudyError(f"{last}: no answer to {row['prompt'][-1]['content']!r}")
        digits[row["data_source"]].append(str(counts[text] // asked[text]))
    return {source: "".join(found) for source, found in digits.items()}


def rendered(prompts: Sequence[list[dict[str, str]]], model: Path) -> list[str]:
    """Return prompts as verl writes them beside answers."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False) for p in prompts]
    return [
        tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True)
        for text in texts
    ]


def is_done(study: Study, cell: Cell, place: Place, done: Collection[str]) -> bool:
    """Whether a cell has a record of its present settings.

    Args:
        study: the study.
        cell: the cell.
        place: the study's files.
        done: names of the cells before it that are done.

    Raises:
        StudyError: the record was made with other settings, or from another base model.
    """
    found = place.record(study, cell.name)
    if found is None or (found.untuned and not place.untuned):
        return False
    path = path_of(place.records, study.name, cell.name)
    if cell.tried is None and found.base != tasks.base_hash(cell.setting):
        raise StudyError(f"{path} was made from another base model; remove it, or choose another folder with --records")
    waits = [trial for knob in cell.treatment.knobs for trial in _other_trials(study, cell, knob)]
    if (place.untuned or all(name in done for name in waits)) and found.settings != settings(
        cell, chosen(study, cell, place)
    ):
        raise StudyError(f"{path} was made with other settings; remove it, or choose another folder with --records")
    return True


def _other_trials(study: Study, cell: Cell, knob: Knob) -> list[str]:
    if cell.tried is not None and knob is cell.treatment.knobs[-1]:
        return []
    return [trial_name(knob, value, study.settings[0]) for value in knob.values]
