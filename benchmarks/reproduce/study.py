"""Defines the studies: methods x base models x seeds, and ablations of ReLIFT on the first base model. Runs nothing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from data_preprocess.arithmetic import TRAIN_SHARES

BATCH = 16  # questions per step and demonstrations per supervised update, as in the configuration `quickstart`


class Kind(StrEnum):
    """What a cell does."""

    EVALUATE = "evaluate"  # evaluates the base model
    RL = "rl"  # makes `Study.steps` steps with rollouts
    SFT = "sft"  # makes supervised updates only, `Method.passes` over its demonstrations


class Pool(StrEnum):
    """The demonstrations that supervised fine-tuning gets."""

    ALL = "all"
    SAME_NUMBER = "same_number"  # as many as ReLIFT used with this base and seed, drawn from all
    SAME_NUMBER_HARDEST = "same_number_hardest"  # as many, drawn from those of the level `hardest`


class StudyError(ValueError):
    """A request does not fit the study; the message says why."""


@dataclass(frozen=True)
class Method:
    """A method of the study: one row of the tables.

    Attributes:
        name: name in the study.
        title: name in tables.
        kind: what its cells do.
        overrides: key=value arguments of training.
        passes: passes over the demonstrations, for supervised methods.
        pool: the demonstrations of a supervised method.
        after: name of the method whose cell of the same base and seed must be done before, or None.
        starts_there: whether training starts from that cell's weights; its compute and demonstrations then count, too.
    """

    name: str
    title: str
    kind: Kind
    overrides: tuple[str, ...] = ()
    passes: int = 0
    pool: Pool = Pool.ALL
    after: str | None = None
    starts_there: bool = False


@dataclass(frozen=True)
class Base:
    """A base model, pretrained for `steps` updates from `seed`."""

    name: str
    seed: int
    steps: int


@dataclass(frozen=True)
class Ablation:
    """An ablation of one setting of ReLIFT.

    Attributes:
        title: heading.
        setting: name of the setting.
        methods: name of the method by value of the setting, in order.
    """

    title: str
    setting: str
    methods: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """The questions and their demonstrations.

    Attributes:
        seed: seed of the questions.
        train_size: number of training questions.
        eval_size: number of evaluation questions per level.
        train_shares: share of the training questions by level.
        demonstrated: share of the training questions that have a demonstration.
        demonstrated_levels: levels whose questions may have one; empty means all levels.
        terse: share of demonstrations and pretraining solutions that give the answer without the steps to it.
        extra_levels: additional levels to evaluate.
    """

    seed: int = 0
    train_size: int = 1280
    eval_size: int = 200
    train_shares: Mapping[str, float] = field(default_factory=lambda: dict(TRAIN_SHARES))
    demonstrated: float = 1.0
    demonstrated_levels: tuple[str, ...] = ()
    terse: float = 0.0
    extra_levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: name of the study.
        bases: base models.
        seeds: seeds of every method.
        methods: methods that run on every base model.
        variants: methods of the ablations, which run on the first base model.
        ablations: the ablations.
        steps: steps of methods with rollouts.
        task: the questions and demonstrations.
    """

    name: str
    bases: tuple[Base, ...]
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]
    variants: tuple[Method, ...] = ()
    ablations: tuple[Ablation, ...] = ()
    steps: int = 80
    task: Task = Task()

    def method(self, name: str) -> Method:
        """Return the method of a name.

        Raises:
            StudyError: the study has no such method.
        """
        for method in (*self.methods, *self.variants):
            if method.name == name:
                return method
        raise StudyError(
            f"study {self.name} has no method {name}; it has "
            + ", ".join(method.name for method in (*self.methods, *self.variants))
        )


@dataclass(frozen=True)
class Cell:
    """One training of a method from a base model with a seed."""

    method: Method
    base: Base
    seed: int

    @property
    def name(self) -> str:
        """Name of the cell and of its files."""
        return f"{self.method.name}-{self.base.name}-seed{self.seed}"


def plan(study: Study, only: Collection[str] = (), seeds: Collection[int] = ()) -> list[Cell]:
    """Return the cells to run, seed by seed, each after the cells that it needs.

    Args:
        study: the study.
        only: names of methods, to which the methods that they need are added; empty means all methods.
        seeds: seeds; empty means all seeds.

    Raises:
        StudyError: the study has no such method or seed.
    """
    for seed in set(seeds) - set(study.seeds):
        raise StudyError(f"study {study.name} has no seed {seed}; it has {', '.join(map(str, study.seeds))}")
    wanted = {study.method(name).name for name in only} or {m.name for m in (*study.methods, *study.variants)}
    needed: set[str] = set()
    while before := {study.method(name).after for name in wanted | needed} - {None} - needed:
        needed |= before
    cells = []
    for position, base in enumerate(study.bases):
        for method in (*study.methods, *(study.variants if position == 0 else ())):
            if method.name not in wanted | needed:
                continue
            # Evaluation is greedy, so that the accuracy of a base model does not depend on the seed.
            drawn = study.seeds[:1] if method.kind is Kind.EVALUATE else [s for s in study.seeds if s in (seeds or {s})]
            cells += [Cell(method, base, seed) for seed in drawn]
    return sorted(cells, key=lambda cell: (study.seeds.index(cell.seed), cell.method.after is not None))


def predecessor(cell: Cell) -> str:
    """Return the name of the cell that must be done before this one."""
    return f"{cell.method.after}-{cell.base.name}-seed{cell.seed}"


def needs(cell: Cell) -> list[str]:
    """Return the names of the cells that must be done before this one."""
    return [predecessor(cell)] if cell.method.after else []


_SFT = ("method=sft",)

METHODS = (
    Method("base", "base model", Kind.EVALUATE),
    # Three passes, as in the paper's SFT on its 46,000 demonstrations (recipe/sft).
    Method("sft", "SFT, all demonstrations", Kind.SFT, _SFT, passes=3),
    Method("relift", "ReLIFT", Kind.RL, ("method=relift",)),
    Method("rl", "RL (GRPO)", Kind.RL, ("method=grpo",)),
    Method("rl_with_sft_loss", "RL with SFT loss", Kind.RL, ("method=rl_with_sft_loss",)),
    # Two cells rather than method=sft_then_rl, so that the first stage is the cell of `sft`.
    Method("sft_then_rl", "SFT, then RL", Kind.RL, ("method=grpo",), after="sft", starts_there=True),
    # Ten passes take about as many floating-point operations as ReLIFT's 80 steps; the report has the numbers.
    Method("sft_compute", "SFT, all demonstrations, compute of ReLIFT", Kind.SFT, _SFT, passes=10),
    Method(
        "sft_same_number", "SFT, as many demonstrations as ReLIFT, of all levels", Kind.SFT, _SFT,
        passes=3, pool=Pool.SAME_NUMBER, after="relift",
    ),
    Method(
        "sft_hardest", "SFT, as many demonstrations as ReLIFT, of the hardest level", Kind.SFT, _SFT,
        passes=3, pool=Pool.SAME_NUMBER_HARDEST, after="relift",
    ),
    Method("always", "SFT update after every step", Kind.RL, ("method=relift", "method.schedule.kind=always")),
    Method(
        "every_8", "SFT update every 8 steps", Kind.RL,
        ("method=relift", "method.schedule.kind=every_k", "method.schedule.every=8"),
    ),
    Method(
        "other", "demonstrations of random non-hardest questions", Kind.RL,
        ("method=relift", "method.trigger.select=other"),
    ),
)  # fmt: skip

VARIANTS = (
    Method("relift_m8", "ReLIFT, M = 8", Kind.RL, ("method=relift", "method.sft.batch_size=8")),
    Method("relift_m32", "ReLIFT, M = 32", Kind.RL, ("method=relift", "method.sft.batch_size=32")),
    Method("relift_p25", "ReLIFT, p = 0.25", Kind.RL, ("method=relift", "method.trigger.max_accuracy=0.25")),
    Method("relift_p50", "ReLIFT, p = 0.5", Kind.RL, ("method=relift", "method.trigger.max_accuracy=0.5")),
)
ABLATIONS = (
    Ablation(
        "M, demonstrations per supervised update",
        "method.sft.batch_size",
        {"8": "relift_m8", "16": "relift", "32": "relift_m32"},
    ),
    Ablation(
        "p, accuracy up to which a question is hardest",
        "method.trigger.max_accuracy",
        {"0": "relift", "0.25": "relift_p25", "0.5": "relift_p50"},
    ),
)

MAIN = Study(
    "main",
    bases=(Base("a", seed=0, steps=500), Base("b", seed=1, steps=450)),
    seeds=(1, 2, 3),
    methods=METHODS,
    variants=VARIANTS,
    ablations=ABLATIONS,
)

# Studies in the regime of the paper: RL gains by itself, demonstrations are fewer or worse than in the main study, and
# accuracy out of distribution changes. Each has other demonstrations.
_EXTRA_LEVELS = ("ood_short", "ood_chain")

# SFT, then RL, with as many demonstrations as ReLIFT uses. They are few, so that SFT makes ten passes.
_EQUAL_NUMBER = (
    Method(
        "sft_few", "SFT, as many demonstrations as ReLIFT", Kind.SFT, _SFT,
        passes=10, pool=Pool.SAME_NUMBER, after="relift",
    ),
    Method(
        "sft_few_then_rl", "SFT, as many demonstrations as ReLIFT, then RL", Kind.RL, ("method=grpo",),
        after="sft_few", starts_there=True,
    ),
)  # fmt: skip


def _regime(name: str, base: Base, task: Task, sft_passes: int = 3, steps: int = 80) -> Study:
    """Return a study of the paper's first table, plus SFT then RL with as many demonstrations as ReLIFT uses.

    Args:
        name: name of the study.
        base: its base model.
        task: its questions and demonstrations.
        sft_passes: passes of SFT over all demonstrations; more if they are few.
        steps: steps of methods with rollouts.
    """
    compared = ("base", "sft", "relift", "rl", "sft_then_rl")
    methods = tuple(method for method in METHODS if method.name in compared) + _EQUAL_NUMBER
    methods = tuple(replace(method, passes=sft_passes) if method.name == "sft" else method for method in methods)
    return Study(name, (base,), seeds=(1, 2, 3), methods=methods, steps=steps, task=task)


# A weaker base model, from which RL has more to gain.
_WEAK = Base("c", seed=2, steps=400)
# A base model that has learned to answer at once as often as step by step.
_MIXED = Base("d", seed=2, steps=500)

REGIMES = (
    _regime("hardest_only", _WEAK, Task(seed=1, demonstrated_levels=("hardest",), extra_levels=_EXTRA_LEVELS)),
    _regime("mixed", _MIXED, Task(seed=1, terse=0.5, extra_levels=_EXTRA_LEVELS)),
    # A quarter of the questions have a demonstration. 160 steps are two passes over the questions.
    _regime("scarce", _WEAK, Task(seed=1, demonstrated=0.25, extra_levels=_EXTRA_LEVELS), 10, 160),
    _regime("mixed_scarce", _MIXED, Task(seed=1, demonstrated=0.25, terse=0.5, extra_levels=_EXTRA_LEVELS), 10, 160),
)

STUDIES = {study.name: study for study in (MAIN, *REGIMES)}

# The cells of MAIN that `--reduced` repeats.
REDUCED_METHODS = ("relift", "rl", "sft", "sft_then_rl")
REDUCED_SEEDS = (1, 2)
REDUCED_BASES = 1
