"""Defines what is run: treatments, settings, the search for learning rates, and the cells of a study. Runs nothing.

A treatment is a method with its settings. The factorial ones combine a gate (which questions give a demonstration), a
placement (where it meets the RL batch) and a weight (of its tokens). All 100 combinations can be run; a first pass
runs those of `BLOCKS`: every gate with every placement at weight 1, every weight with every placement at the gate
acc = 0, and gates with weights at three placements.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

from benchmarks.reproduce.study import BATCH, MAIN, STUDIES, Base, Task
from verl_relift.run.budget import By

GATES = {
    "acc0": ("method.trigger.max_accuracy=0.0",),
    "acc25": ("method.trigger.max_accuracy=0.25",),
    "acc50": ("method.trigger.max_accuracy=0.5",),
    "always": ("method.trigger.select=all",),
    "difficulty": ("method.trigger.select=proportional",),
}
# Own words: the policy is shown the solution, and what it then writes waits in the buffer in the solution's place.
PLACEMENTS = {
    "own_step": ("method=relift",),
    "spliced": ("method=factorial", "method.placement=spliced"),
    "in_mean": ("method=factorial", "method.placement=in_mean"),
    "out_of_mean": ("method=factorial", "method.placement=out_of_mean"),
    "own_words": ("method=relift", "method.demonstrations.source=privileged"),
}
WEIGHTS = ("one", "phi", "shaped", "probability")
FACTORS = {"gate": tuple(GATES), "placement": tuple(PLACEMENTS), "weight": WEIGHTS}
OF_COEFFICIENT = ("spliced", "in_mean", "out_of_mean")  # placements whose strength is a coefficient in the RL update


class Kind(StrEnum):
    """What the command of a cell does."""

    EVALUATE = "evaluate"  # evaluates the base model
    TRAIN = "train"
    STAGES = "stages"  # trains in two stages


@dataclass(frozen=True)
class Knob:
    """A setting that the search chooses.

    Attributes:
        name: name of the search.
        key: the setting.
        values: what is tried, ascending.
    """

    name: str
    key: str
    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The value without a search."""
        return self.values[len(self.values) // 2]


@dataclass(frozen=True)
class Treatment:
    """A method with its settings.

    Attributes:
        name: name in the study.
        title: name in tables.
        overrides: key=value arguments of training.
        knobs: settings that the search chooses.
        kind: what its cells do.
        gate, placement, weight: its levels, for a combination of the three.
        matches: name of the treatment whose budget the first stage spends.
        by: what of the budget is alike.
        supervised: whether it makes the setting's number of supervised steps, and nothing else.
        privileged: whether it shows the policy a solution.
    """

    name: str
    title: str
    overrides: tuple[str, ...] = ()
    knobs: tuple[Knob, ...] = ()
    kind: Kind = Kind.TRAIN
    gate: str = ""
    placement: str = ""
    weight: str = ""
    matches: str = ""
    by: By = By.DEMONSTRATIONS
    supervised: bool = False
    privileged: bool = False


@dataclass(frozen=True)
class Setting:
    """Questions, base model and length of training.

    Attributes:
        name: name in the study.
        title: what it is, in words.
        config: name of the configuration.
        steps: steps with rollouts.
        supervised_steps: steps of supervised fine-tuning on all demonstrations.
        task: questions of the arithmetic task; None with word problems.
        base: base model of the arithmetic task.
        train: word problems to train on; the other set is out of distribution.
        rollouts: of a step, of all its questions.
        samples: answers to each question in an evaluation; one is greedy.
        overrides: key=value arguments of training.
        own_words: the same, for treatments that show the policy a solution.
    """

    name: str
    title: str
    config: str
    steps: int
    supervised_steps: int
    task: Task | None = None
    base: Base | None = None
    train: str = ""
    rollouts: int = 128
    samples: int = 1
    overrides: tuple[str, ...] = ()
    own_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One training of a treatment in a setting with a seed, or one trial of the search.

    Attributes:
        tried: the value of the treatment's last knob, in a trial.
    """

    treatment: Treatment
    setting: Setting
    seed: int
    tried: float | None = None

    @property
    def name(self) -> str:
        """Name of the cell and of its files."""
        if self.tried is not None:
            return trial_name(self.treatment.knobs[-1], self.tried, self.setting)
        return f"{self.treatment.name}-{self.setting.name}-seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """A study: its settings, of which the first is searched in, and its cells in blocks.

    Attributes:
        trials: a treatment for each knob.
        blocks: treatments by the name of the block, and the settings that it runs in.
    """

    name: str
    settings: tuple[Setting, ...]
    trials: tuple[Treatment, ...]
    blocks: dict[str, tuple[tuple[Treatment, ...], tuple[Setting, ...]]]
    seeds: tuple[int, ...] = (1,)

    @property
    def treatments(self) -> dict[str, Treatment]:
        """Every treatment by its name, in the order of the blocks."""
        return {t.name: t for treatments, _ in self.blocks.values() for t in treatments}


SEARCH_SEED = 0  # a trial's seed, which no other cell has
RL_RATE = "actor_rollout_ref.actor.optim.lr"


def trial_name(knob: Knob, value: float, setting: Setting) -> str:
    """Return the name of a trial's cell."""
    return f"search-{knob.name}-{value:g}-{setting.name}"


def combination(gate: str, placement: str, weight: str, rates: "Rates") -> Treatment:
    """Return the treatment of three levels."""
    key = "method.sft.token_weight" if placement not in OF_COEFFICIENT else "method.token_weight"
    return Treatment(
        f"{placement}.{gate}.{weight}",
        f"{placement}, {gate}, {weight}",
        (*PLACEMENTS[placement], *GATES[gate], f"{key}={weight}"),
        (rates.rl, rates.of_placement(placement, weight)),
        gate=gate,
        placement=placement,
        weight=weight,
        privileged=placement == "own_words",
    )


@dataclass(frozen=True)
class Rates:
    """The values that are tried in a study. All searches but that of the RL learning rate have the same number.

    Attributes:
        rl: the RL learning rate.
        supervised: of a supervised learning rate.
        coefficient: of the supervised loss in the RL update.
        weighted: the same, where weights or a joint mean make the loss smaller.
        peak: of CHORD's mu.
    """

    rl: Knob
    supervised: tuple[float, ...]
    coefficient: tuple[float, ...]
    weighted: tuple[float, ...]
    peak: tuple[float, ...]

    def of_placement(self, placement: str, weight: str) -> Knob:
        """Return the knob of a placement with a weight."""
        if placement not in OF_COEFFICIENT:
            return Knob(f"{placement}.{weight}", "method.sft.lr", self.supervised)
        plain = placement == "spliced" and weight == "one"
        return Knob(f"{placement}.{weight}", "method.coeff", self.coefficient if plain else self.weighted)

    @property
    def sft(self) -> Knob:
        """The knob of supervised fine-tuning."""
        return Knob("sft", "method.sft.lr", self.supervised)


def baselines(rates: Rates) -> tuple[Treatment, ...]:
    """Return what the combinations are compared with."""
    return (
        Treatment("base", "base model", ("method=grpo",), kind=Kind.EVALUATE),
        Treatment("grpo", "RL (GRPO)", ("method=grpo",), (rates.rl,)),
        Treatment("sft", "SFT, all demonstrations", ("method=sft",), (rates.sft,), supervised=True),
        Treatment(
            "sft_then_rl", "SFT on all demonstrations, then RL", ("method=sft_then_rl",), (rates.rl, rates.sft),
            Kind.STAGES,
        ),
        Treatment(
            "chord_phi", "CHORD-phi", ("method=chord_phi",),
            (rates.rl, Knob("chord_phi", "method.mu.peak", rates.peak)),
        ),
    )  # fmt: skip


# Methods as their configuration has them; schedules end with the run.
AS_CONFIGURED = {
    "relift": (),
    "relift_authors": (),
    "relift_splice": (),
    "rl_with_sft_loss": (),
    "luffy": (),
    "rl_plus": (),
    "srft": (),
    "hpt": (),
    "superrl": (),
    "chord_mu": (),
    "chord_phi": (),
    "prefix_rft": ("method.steps=80",),
    "uft": ("method.steps=80",),
    "hint_retry": (),
    "regft": (),
}


def as_configured(rates: Rates) -> tuple[Treatment, ...]:
    """Return methods with the values of their configuration, and only the RL learning rate from the search."""
    return tuple(
        Treatment(
            f"configured.{name}",
            f"{name}, as configured",
            (f"method={name}", *settings),
            (rates.rl,),
            privileged=name == "regft",
        )
        for name, settings in AS_CONFIGURED.items()
    )


def matched(treatment: Treatment, by: By, rates: Rates) -> Treatment:
    """Return SFT, then RL, whose first stage spends what a treatment has spent on demonstrations."""
    return Treatment(
        f"sequence.{by.value}.{treatment.name}",
        f"SFT with as many {by.value} as {treatment.title}, then RL",
        ("method=sft_then_rl",),
        (rates.rl, rates.sft),
        Kind.STAGES,
        matches=treatment.name,
        by=by,
    )


def _named(treatments: Sequence[Treatment], name: str) -> Treatment:
    return next(t for t in treatments if t.name == name)


def _small() -> Study:
    rates = Rates(
        Knob("grpo", RL_RATE, (1.5e-5, 5e-5, 1.5e-4)),
        supervised=(3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
        coefficient=(0.1, 0.3, 1.0, 3.0, 10.0),
        weighted=(0.3, 1.0, 3.0, 10.0, 30.0),
        peak=(0.01, 0.03, 0.1, 0.3, 0.9),
    )
    settings = tuple(_arithmetic(name) for name in ("main", "mixed_scarce", "hardest_only"))
    early = replace(
        settings[0],
        name="main_early",
        title="as main, a quarter of the steps",
        steps=settings[0].steps // 4,
        supervised_steps=settings[0].supervised_steps // 4,
    )
    plain = baselines(rates)
    every = tuple(combination(*levels, rates) for levels in product(*FACTORS.values()))
    gates = tuple(t for t in every if t.weight == "one")
    weights = tuple(t for t in every if t.gate == "acc0")
    crossed = tuple(
        t for t in every
        if t.gate in ("always", "difficulty") and t.placement in ("own_step", "spliced", "in_mean")
    )  # fmt: skip
    # ReLIFT, HPT, LUFFY and own words.
    published = tuple(
        _named(every, name)
        for name in ("own_step.acc0.one", "spliced.acc0.one", "in_mean.always.shaped", "own_words.acc0.one")
    )
    sequences = tuple(matched(t, by, rates) for t in published for by in (By.DEMONSTRATIONS, By.OPERATIONS))
    searched = (_named(plain, "grpo"), _named(plain, "sft"), _named(plain, "chord_phi"), *weights)
    return Study(
        "small",
        (*settings, early),
        searched,
        {
            "baselines": (plain, (*settings, early)),
            "gates": (gates, settings),
            "weights": (weights, settings[:1]),
            "crossed": (crossed, settings[:1]),
            "published": (published, (*settings, early)),
            "sequences": (sequences, (*settings, early)),
            "methods": (as_configured(rates), settings[:1]),
            "everything": (every, settings),
        },
    )


def _arithmetic(name: str) -> Setting:
    study = STUDIES[name]
    passes = study.method("sft").passes
    demonstrations = "all" if study is MAIN else f"{study.task.demonstrated:.0%}"
    levels = ", ".join(study.task.demonstrated_levels)
    terse = f", {study.task.terse:.0%} of them the answer alone" if study.task.terse else ""
    return Setting(
        name,
        f"arithmetic; demonstrations: {demonstrations}{f' of {levels}' if levels else ''}{terse}",
        "quickstart",
        study.steps,
        passes * study.task.train_size // BATCH,
        replace(study.task, eval_size=300),  # 100 for the search, 200 for the tables
        study.bases[0],
        own_words=("data.max_prompt_length=96", "method.privileged.template='{question}{hint}'"),
    )


def _real() -> Study:
    rates = Rates(
        Knob("grpo", RL_RATE, (3e-6, 1e-5, 3e-5)),
        supervised=(3e-5, 1e-4, 3e-4),
        coefficient=(0.3, 1.0, 3.0),
        weighted=(1.0, 3.0, 10.0),
        peak=(0.03, 0.1, 0.3),
    )
    kept = (
        "trainer.save_freq=8", "trainer.max_actor_ckpt_to_keep=1", "data.max_prompt_length=320",
        # by default the precision follows from the processor
        "actor_rollout_ref.actor.megatron.dtype=bfloat16", "actor_rollout_ref.rollout.dtype=bfloat16",
    )  # fmt: skip
    longer = ("data.max_response_length=256", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=896")
    name = "SmolLM2-135M-Instruct, trained on"
    settings = (
        Setting(
            "svamp", f"{name} SVAMP; GSM8K is out of distribution", "pretrained", 32, 32,
            train="svamp", rollouts=32, samples=4, overrides=kept, own_words=("data.max_prompt_length=512",),
        ),
        Setting(
            "gsm8k", f"{name} GSM8K; SVAMP is out of distribution", "pretrained", 32, 32,
            train="gsm8k", rollouts=32, samples=4, overrides=(*kept, *longer),
            own_words=("data.max_prompt_length=640",),
        ),
    )  # fmt: skip
    plain = baselines(rates)
    relift, hpt, luffy, own_words = (
        replace(combination(*levels, rates), title=title)
        for title, levels in {
            "ReLIFT": ("acc0", "own_step", "one"),
            "HPT": ("acc0", "spliced", "one"),
            "LUFFY": ("always", "in_mean", "shaped"),
            "own words": ("acc0", "own_words", "one"),
        }.items()
    )
    published = (relift, hpt, luffy, own_words)
    sequences = tuple(matched(t, By.OPERATIONS, rates) for t in published)
    searched = (_named(plain, "grpo"), _named(plain, "sft"), _named(plain, "chord_phi"), *published)
    return Study(
        "real",
        settings,
        searched,
        {
            "baselines": (plain, settings),
            "published": (published, settings),
            "sequences": (sequences, settings),
        },
        seeds=(1, 2),
    )


SMALL, REAL = _small(), _real()
ALL = {study.name: study for study in (SMALL, REAL)}
FIRST_PASS = ("baselines", "methods", "gates", "weights", "crossed", "published", "sequences")


def trials(study: Study) -> list[Cell]:
    """Return the cells of the search, in which the RL learning rate comes first: the others are tried with it."""
    setting = study.settings[0]
    return [
        Cell(treatment, setting, SEARCH_SEED, value)
        for treatment in study.trials
        for value in treatment.knobs[-1].values
    ]


def cells(study: Study, blocks: Sequence[str] = FIRST_PASS, seeds: Sequence[int] = ()) -> list[Cell]:
    """Return the cells of some blocks, seed by seed, each once and after those that it needs; without the search."""
    found: dict[str, Cell] = {}
    for seed in seeds or study.seeds:
        for name in blocks:
            for treatment, setting in product(*study.blocks.get(name, ((), ()))):
                first = treatment.kind is not Kind.EVALUATE or seed == (seeds or study.seeds)[0]
                if first:
                    cell = Cell(treatment, setting, 1 if treatment.kind is Kind.EVALUATE else seed)
                    found.setdefault(cell.name, cell)
    return sorted(found.values(), key=lambda cell: (cell.seed, bool(cell.treatment.matches)))


def needs(study: Study, cell: Cell) -> list[str]:
    """Return the names of the cells that must be done before this one: the trials of its knobs, and what it matches."""
    searched = {cell.treatment.knobs[-1].name} if cell.tried is not None else set()
    setting = study.settings[0]
    names = [
        trial_name(knob, value, setting)
        for knob in cell.treatment.knobs
        if knob.name not in searched
        for value in knob.values
    ]
    if cell.treatment.matches:
        names.append(Cell(study.treatments[cell.treatment.matches], cell.setting, cell.seed).name)
    return names


def with_needed(study: Study, wanted: Sequence[Cell]) -> list[Cell]:
    """Return cells with all that they need before them."""
    known = {cell.name: cell for cell in every_cell(study, {cell.seed for cell in wanted} | {1})}
    ordered: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        if cell.name not in ordered:
            for name in needs(study, cell):
                add(known[name])
            ordered[cell.name] = cell

    for cell in wanted:
        add(cell)
    return list(ordered.values())


def every_cell(study: Study, seeds: Sequence[int] | set[int]) -> Iterator[Cell]:
    """Yield every cell that can be run: trials, and all treatments of all blocks."""
    yield from trials(study)
    yield from cells(study, tuple(study.blocks), sorted(set(seeds) - {SEARCH_SEED}))
