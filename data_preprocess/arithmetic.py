"""Arithmetic chains: a small task with levels, made from a seed.

On this task, ReLIFT learns within minutes on a CPU. A question is a chain of + and - over digits 1 to 9, evaluated from
left to right, whose running value stays within 0..99. A model that was pretrained on easy, medium and hard chains has
never seen `*`: every rollout fails on `hardest`, and only a demonstration helps.

| level    | rule                                               | used for             |
|----------|----------------------------------------------------|----------------------|
| easy     | 2 or 3 terms                                       | training, evaluation |
| medium   | 4 terms                                            | training, evaluation |
| hard     | 5 or 6 terms                                       | training, evaluation |
| hardest  | `a*2±b±c`, a in 3..9                               | training, evaluation |
| ood_long | 7 or 8 terms                                       | evaluation           |
| ood_two  | `a*2±b*2`, a and b in 3..9: 77 questions in all    | evaluation           |
| ood_mix  | 3 terms, the product second or third               | evaluation           |

No evaluation question of any level is in the training or the pretraining set.

    python -m data_preprocess.arithmetic --output DIR [--seed 0 --train-size 1280 --eval-size 200]
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from verl_relift.data.schema import Row
from verl_relift.usage import argument_parser

from .output import write_rows

MAX_VALUE = 99
# Each level has one or more shapes. A shape says for each term whether it is a product `a*2` (True) or a digit (False).
SHAPES: dict[str, tuple[tuple[bool, ...], ...]] = {
    "easy": ((False,) * 2, (False,) * 3),
    "medium": ((False,) * 4,),
    "hard": ((False,) * 5, (False,) * 6),
    "hardest": ((True, False, False),),
    "ood_long": ((False,) * 7, (False,) * 8),
    "ood_two": ((True, True),),
    "ood_mix": ((False, True, False), (False, False, True)),
}
# Evaluated on request only. Unlike the `ood` levels above, a model that has learned `hardest` solves some of these.
EXTRA_SHAPES: dict[str, tuple[tuple[bool, ...], ...]] = {
    "ood_short": ((True, False),),
    "ood_chain": ((True, False, False, False), (True, False, False, False, False)),
}
TRAIN_SHARES = {"easy": 0.2, "medium": 0.3, "hard": 0.2, "hardest": 0.3}
PRETRAIN_SHARES = {"easy": 0.65, "medium": 0.27, "hard": 0.08}
# If training uses a shape too, evaluation takes at most this fraction of its distinct problems: two terms have only
# 126.
MAX_HELD_OUT = 1 / 3
_COUNTABLE = 4  # shapes with at most this many terms are enumerated; longer ones have hundreds of thousands of problems


@dataclass(frozen=True, slots=True)
class Problem:
    """A chain such as `7*2+3-4` with its solution.

    Attributes:
        level: one of `SHAPES` or `EXTRA_SHAPES`.
        expression: the chain.
        steps: the steps of the solution, such as `7+7=14`.
        answer: the value of the chain.
    """

    level: str
    expression: str
    steps: tuple[str, ...]
    answer: str

    @property
    def text(self) -> str:
        """The question as the user asks it."""
        return f"{self.expression}=?"

    @property
    def solution(self) -> str:
        """The demonstration."""
        lines = "".join(f"{step}\n" for step in self.steps)
        return f"<think>{lines}</think>\\boxed{{{self.answer}}}"


@dataclass(frozen=True, slots=True)
class Split:
    """The problems of the three files.

    Attributes:
        train: distinct problems for training.
        test: problems for evaluation, which are in neither of the other sets.
        pretrain: problems for the base model, with repetition.
    """

    train: list[Problem]
    test: list[Problem]
    pretrain: list[Problem]


def solve(level: str, signs: Sequence[str], digits: Sequence[int], shape: Sequence[bool]) -> Problem | None:
    """Build the chain with these signs, digits and products.

    A product is computed first, by addition: `7*2` becomes the step `7+7=14`.

    Args:
        level: recorded in the problem.
        signs: one before each term, the first is "+".
        digits: one per term.
        shape: for each term, whether it is a product `a*2`.

    Returns:
        The problem; None if its running value leaves 0..99.
    """
    terms = [f"{digit}*2" if doubled else str(digit) for digit, doubled in zip(digits, shape, strict=True)]
    steps = [f"{digit}+{digit}={2 * digit}" for digit, doubled in zip(digits, shape, strict=True) if doubled]
    values = [2 * digit if doubled else digit for digit, doubled in zip(digits, shape, strict=True)]
    total = values[0]
    for sign, value in zip(signs[1:], values[1:], strict=True):
        after = total + value if sign == "+" else total - value
        if not 0 <= after <= MAX_VALUE:
            return None
        steps.append(f"{total}{sign}{value}={after}")
        total = after
    expression = terms[0] + "".join(sign + term for sign, term in zip(signs[1:], terms[1:], strict=True))
    return Problem(level, expression, tuple(steps), str(total))


def draw(level: str, shape: Sequence[bool], rng: random.Random) -> Problem:
    """Draw a random problem of one shape."""
    while True:
        digits = [rng.randint(3 if doubled else 1, 9) for doubled in shape]
        signs = ["+", *(rng.choice("+-") for _ in shape[1:])]
        problem = solve(level, signs, digits, shape)
        if problem is not None:
            return problem


@cache
def enumerate_shape(level: str, shape: tuple[bool, ...]) -> tuple[Problem, ...]:
    """Return every problem of one shape, in a fixed order."""
    digits = product(*(range(3 if doubled else 1, 10) for doubled in shape))
    candidates = (
        solve(level, ("+", *signs), chosen, shape)
        for chosen in digits
        for signs in product("+-", repeat=len(shape) - 1)
    )
    return tuple(problem for problem in candidates if problem is not None)


def make_split(
    seed: int = 0,
    train_size: int = 1280,
    eval_size: int = 200,
    pretrain_size: int = 14_400,
    train_shares: Mapping[str, float] = TRAIN_SHARES,
    extra_levels: Sequence[str] = (),
) -> Split:
    """Make training, evaluation and pretraining problems. Equal arguments give equal problems.

    Args:
        seed: seed of all draws.
        train_size: number of distinct training problems, divided by `train_shares`.
        eval_size: number of evaluation problems of each level; a level that has fewer (ood_two: 77) gives all it has.
        pretrain_size: number of pretraining problems, drawn with repetition.
        train_shares: fraction of the training problems of each level.
        extra_levels: levels of `EXTRA_SHAPES` to evaluate too. They do not change the other problems.

    Raises:
        ValueError: a level has fewer distinct problems than `train_size` asks for.
    """
    rng = random.Random(seed)
    test = [problem for level, shapes in SHAPES.items() for problem in _evaluation(level, shapes, eval_size, rng)]
    held_out = {problem.expression for problem in test}
    train: list[Problem] = []
    for level, size in _sizes(train_size, train_shares).items():
        train += _distinct(level, size, held_out, rng)
    rng.shuffle(train)
    for level in extra_levels:
        test += _evaluation(level, EXTRA_SHAPES[level], eval_size, rng)
    return Split(train, test, pretraining_questions(seed, pretrain_size, held_out))


def pretraining_questions(seed: int, size: int, held_out: Collection[str]) -> list[Problem]:
    """Draw problems of the levels that a base model knows, with repetition.

    Args:
        seed: seed of the draws.
        size: number of problems.
        held_out: expressions that must not occur.
    """
    rng = random.Random(f"pretrain-{seed}")
    held_out = frozenset(held_out)
    problems = [
        _outside(level, held_out, rng) for level, count in _sizes(size, PRETRAIN_SHARES).items() for _ in range(count)
    ]
    rng.shuffle(problems)
    return problems


def to_row(problem: Problem, index: int, split: str) -> Row:
    """Convert a problem to the shared schema.

    The level is part of `data_source`, so verl's validation reports each level.
    """
    return Row(
        data_source=f"arithmetic/{problem.level}",
        prompt=[("user", problem.text)],
        target=problem.solution,
        ground_truth=problem.answer,
        index=index,
        split=split,
        level=problem.level,
    )


def _evaluation(level: str, shapes: Sequence[tuple[bool, ...]], size: int, rng: random.Random) -> list[Problem]:
    """Choose up to `size` distinct problems of a level, spread evenly over its shapes if these have enough."""
    chosen: list[Problem] = []
    for position, shape in enumerate(shapes):
        wanted = (size - len(chosen)) // (len(shapes) - position)
        if len(shape) > _COUNTABLE:
            chosen += _distinct_of_shape(level, shape, wanted, frozenset(), rng)
            continue
        problems = enumerate_shape(level, shape)
        most = int(len(problems) * MAX_HELD_OUT) if level in TRAIN_SHARES else len(problems)
        chosen += rng.sample(problems, min(wanted, most))
    return chosen


def _distinct(level: str, size: int, held_out: Collection[str], rng: random.Random) -> list[Problem]:
    """Choose `size` distinct problems of a level outside `held_out`, spread over its shapes if these have enough."""
    chosen: list[Problem] = []
    for position, shape in enumerate(SHAPES[level]):
        wanted = (size - len(chosen)) // (len(SHAPES[level]) - position)
        if len(shape) > _COUNTABLE:
            chosen += _distinct_of_shape(level, shape, wanted, held_out, rng)
            continue
        left = [problem for problem in enumerate_shape(level, shape) if problem.expression not in held_out]
        chosen += rng.sample(left, min(wanted, len(left)))
    if len(chosen) < size:
        raise ValueError(
            f"level {level} has only {len(chosen)} questions that are not in the evaluation set, not {size}: "
            "lower --train-size or --eval-size"
        )
    return chosen


def _distinct_of_shape(
    level: str, shape: Sequence[bool], size: int, held_out: Collection[str], rng: random.Random
) -> list[Problem]:
    found: dict[str, Problem] = {}
    while len(found) < size:
        problem = draw(level, shape, rng)
        if problem.expression not in held_out:
            found.setdefault(problem.expression, problem)
    return list(found.values())


def _outside(level: str, held_out: frozenset[str], rng: random.Random) -> Problem:
    while True:
        problem = draw(level, rng.choice(SHAPES[level]), rng)
        if problem.expression not in held_out:
            return problem


def _sizes(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divide `total` by `shares`; the first levels get what rounding leaves over."""
    sizes = {level: int(total * share) for level, share in shares.items()}
    for level in list(sizes)[: total - sum(sizes.values())]:
        sizes[level] += 1
    return sizes


def main(arguments: Sequence[str] | None = None) -> None:
    """Write train.parquet, test.parquet and pretrain.parquet."""
    parser = argument_parser("data_preprocess.arithmetic", __doc__, page="docs/data.md")
    parser.add_argument("--output", required=True, help="folder for train.parquet, test.parquet, pretrain.parquet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-size", type=int, default=1280, help="distinct training questions")
    parser.add_argument("--eval-size", type=int, default=200, help="evaluation questions of each level")
    parser.add_argument("--pretrain-size", type=int, default=14_400, help="pretraining questions, with repetition")
    options = parser.parse_args(arguments)
    split = make_split(options.seed, options.train_size, options.eval_size, options.pretrain_size)
    sets = {"train": split.train, "test": split.test, "pretrain": split.pretrain}
    write_rows(
        options.output,
        {
            f"{name}.parquet": [to_row(problem, i, name) for i, problem in enumerate(problems)]
            for name, problems in sets.items()
        },
    )
    for name, problems in sets.items():
        print(f"{name}.parquet: {len(problems)} questions")


if __name__ == "__main__":
    main()
