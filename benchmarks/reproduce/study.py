"""What a study consists of: methods x bases x seeds, and ablations of ReLIFT on the first base. Nothing is run here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from data_preprocess.arithmetic import TRAIN_SHARES

BATCH = 16  # questions of a step, and demonstrations of a supervised update: the configuration quickstart's


class Kind(StrEnum):
    """What a cell does."""

    EVALUATE = "evaluate"  # the base as it is
    RL = "rl"  # `Study.steps` steps with rollouts
    SFT = "sft"  # supervised updates alone, `Method.passes` over its demonstrations


class Pool(StrEnum):
    """The demonstrations that supervised fine-tuning is given."""

    ALL = "all"
    SAME_NUMBER = "same_number"  # as many as ReLIFT used with this base and seed, at random from all
    SAME_NUMBER_HARDEST = "same_number_hardest"  # as many, at random from those of the level `hardest`


class StudyError(ValueError):
    """What was asked for does not fit the study; the message is for the one who asked."""


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    after: the method whose cell of the same base and seed has to be done before. starts_there: training starts from
    that cell's weights, and its compute and demonstrations count here too.
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
    """A base model: `steps` of pretraining from `seed`."""

    name: str
    seed: int
    steps: int


@dataclass(frozen=True)
class Ablation:
    """Values of one setting of ReLIFT. `methods` are in the order of the values; a method of the study may be one."""

    title: str
    setting: str
    methods: Mapping[str, str]  # value -> method


@dataclass(frozen=True)
class Task:
    """The questions and their demonstrations.

    demonstrated: share of the training questions that have one, of the levels `demonstrated_levels` (none: of all).
    terse: share of the demonstrations, and of what the base is pretrained on, that give the answer without the steps to
    it. extra_levels: of the task's, evaluated too.
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
    """`methods` run on every base, `variants` (of the ablations) on the first one, each with every seed."""

    name: str
    bases: tuple[Base, ...]
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]
    variants: tuple[Method, ...] = ()
    ablations: tuple[Ablation, ...] = ()
    steps: int = 80
    task: Task = Task()

    def method(self, name: str) -> Method:
        """Raises StudyError for a name that the study does not have."""
        for method in (*self.methods, *self.variants):
            if method.name == name:
                return method
        raise StudyError(
            f"study {self.name} has no method {name}; it has "
            + ", ".join(method.name for method in (*self.methods, *self.variants))
        )


@dataclass(frozen=True)
class Cell:
    """One method, trained once."""

    method: Method
    base: Base
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.method.name}-{self.base.name}-seed{self.seed}"


def plan(study: Study, only: Collection[str] = (), seeds: Collection[int] = ()) -> list[Cell]:
    """The cells, seed by seed, each after those it needs; what the chosen ones need is added.

    Args:
        only: names of methods; none means all. seeds: likewise.

    Raises:
        StudyError: a method or seed that the study does not have.
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
            # Evaluation is greedy: a base has one accuracy, whatever the seed.
            drawn = study.seeds[:1] if method.kind is Kind.EVALUATE else [s for s in study.seeds if s in (seeds or {s})]
            cells += [Cell(method, base, seed) for seed in drawn]
    return sorted(cells, key=lambda cell: (study.seeds.index(cell.seed), cell.method.after is not None))


def ready(todo: Sequence[Cell], done: Collection[str]) -> Cell | None:
    """The first cell of `todo` whose predecessor is among the names in `done`."""
    for cell in todo:
        if cell.method.after is None or predecessor(cell) in done:
            return cell
    return None


def predecessor(cell: Cell) -> str:
    """Name of the cell that has to be done before this one."""
    return f"{cell.method.after}-{cell.base.name}-seed{cell.seed}"


_SFT = ("recipe=sft",)

METHODS = (
    Method("base", "base model", Kind.EVALUATE),
    # Three passes, as many as the paper's scale gives its 46,000 demonstrations (recipe/sft).
    Method("sft", "SFT, all demonstrations", Kind.SFT, _SFT, passes=3),
    Method("relift", "ReLIFT", Kind.RL, ("recipe=relift",)),
    Method("rl", "RL (GRPO)", Kind.RL, ("recipe=grpo",)),
    Method("rl_with_sft_loss", "RL with SFT loss", Kind.RL, ("recipe=rl_with_sft_loss",)),
    Method("sft_then_rl", "SFT, then RL", Kind.RL, ("recipe=grpo",), after="sft", starts_there=True),
    # About the floating-point operations of ReLIFT's 80 steps; the report has the figures.
    Method("sft_compute", "SFT, all demonstrations, compute of ReLIFT", Kind.SFT, _SFT, passes=10),
    Method(
        "sft_same_number", "SFT, as many demonstrations as ReLIFT, of all levels", Kind.SFT, _SFT,
        passes=3, pool=Pool.SAME_NUMBER, after="relift",
    ),
    Method(
        "sft_hardest", "SFT, as many demonstrations as ReLIFT, of the hardest level", Kind.SFT, _SFT,
        passes=3, pool=Pool.SAME_NUMBER_HARDEST, after="relift",
    ),
    Method("always", "SFT update after every step", Kind.RL, ("recipe=relift", "relift.schedule.kind=always")),
    Method(
        "every_8", "SFT update every 8 steps", Kind.RL,
        ("recipe=relift", "relift.schedule.kind=every_k", "relift.schedule.every=8"),
    ),
    Method(
        "other", "demonstrations of random non-hardest questions", Kind.RL,
        ("recipe=relift", "relift.trigger.select=other"),
    ),
)  # fmt: skip

VARIANTS = (
    Method("relift_m8", "ReLIFT, M = 8", Kind.RL, ("recipe=relift", "relift.sft.batch_size=8")),
    Method("relift_m32", "ReLIFT, M = 32", Kind.RL, ("recipe=relift", "relift.sft.batch_size=32")),
    Method("relift_p25", "ReLIFT, p = 0.25", Kind.RL, ("recipe=relift", "relift.trigger.max_accuracy=0.25")),
    Method("relift_p50", "ReLIFT, p = 0.5", Kind.RL, ("recipe=relift", "relift.trigger.max_accuracy=0.5")),
)
ABLATIONS = (
    Ablation(
        "M, demonstrations of a supervised update",
        "relift.sft.batch_size",
        {"8": "relift_m8", "16": "relift", "32": "relift_m32"},
    ),
    Ablation(
        "p, accuracy up to which a question is hardest",
        "relift.trigger.max_accuracy",
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

# The search for the regime of the paper: RL with gains of its own, fewer or worse demonstrations than the main study's,
# and levels out of distribution that move. In each of these the demonstrations are other ones.
_EXTRA_LEVELS = ("ood_short", "ood_chain")

# SFT and RL one after the other, with no more demonstrations than ReLIFT takes. They are few: ten passes.
_EQUAL_NUMBER = (
    Method(
        "sft_few", "SFT, as many demonstrations as ReLIFT", Kind.SFT, _SFT,
        passes=10, pool=Pool.SAME_NUMBER, after="relift",
    ),
    Method(
        "sft_few_then_rl", "SFT, as many demonstrations as ReLIFT, then RL", Kind.RL, ("recipe=grpo",),
        after="sft_few", starts_there=True,
    ),
)  # fmt: skip


def _regime(name: str, base: Base, task: Task, sft_passes: int = 3, steps: int = 80) -> Study:
    """The methods of the paper's first table, and its strongest rival with as many demonstrations as ReLIFT.

    sft_passes: of SFT on all demonstrations; more where they are few.
    """
    compared = ("base", "sft", "relift", "rl", "sft_then_rl")
    methods = tuple(method for method in METHODS if method.name in compared) + _EQUAL_NUMBER
    methods = tuple(replace(method, passes=sft_passes) if method.name == "sft" else method for method in methods)
    return Study(name, (base,), seeds=(1, 2, 3), methods=methods, steps=steps, task=task)


# A weaker base: RL has more to gain.
_WEAK = Base("c", seed=2, steps=400)
# A base that has learned as often to give the answer at once as to work it out.
_MIXED = Base("d", seed=2, steps=500)

REGIMES = (
    _regime("hardest_only", _WEAK, Task(seed=1, demonstrated_levels=("hardest",), extra_levels=_EXTRA_LEVELS)),
    _regime("mixed", _MIXED, Task(seed=1, terse=0.5, extra_levels=_EXTRA_LEVELS)),
    # A quarter of the questions has a demonstration; two passes over the questions, for ReLIFT sees each once in one.
    _regime("scarce", _WEAK, Task(seed=1, demonstrated=0.25, extra_levels=_EXTRA_LEVELS), 10, 160),
    _regime("mixed_scarce", _MIXED, Task(seed=1, demonstrated=0.25, terse=0.5, extra_levels=_EXTRA_LEVELS), 10, 160),
)

STUDIES = {study.name: study for study in (MAIN, *REGIMES)}

# What `--reduced` repeats of the study MAIN: the same cells, fewer of them.
REDUCED_METHODS = ("relift", "rl", "sft", "sft_then_rl")
REDUCED_SEEDS = (1, 2)
REDUCED_BASES = 1
