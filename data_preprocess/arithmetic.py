"""Arithmetic chains: a small task with levels, made from a seed, on which ReLIFT can be seen to learn within minutes on
a CPU.

A question is a chain of + and - over digits 1 to 9, read from left to right, whose running value stays within 0..99. A
model that was pretrained on easy, medium and hard chains has never seen `*`: on `hardest` every rollout fails and only
a demonstration helps.

| level    | rule                                               | used for            |
|----------|----------------------------------------------------|---------------------|
| easy     | 2 or 3 terms                                       | training, evaluation |
| medium   | 4 terms                                            | training, evaluation |
| hard     | 5 or 6 terms                                       | training, evaluation |
| hardest  | `a*2±b±c`, a in 3..9                               | training, evaluation |
| ood_long | 7 or 8 terms                                       | evaluation          |
| ood_two  | `a*2±b*2`, a and b in 3..9: 77 questions in all    | evaluation          |
| ood_mix  | 3 terms, the product second or third               | evaluation          |

No evaluation question of any level is in the training or the pretraining set.

    python -m data_preprocess.arithmetic --output DIR [--seed 0 --train-size 1280 --eval-size 200]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from verl_relift.data.schema import Row

from .output import write_rows

MAX_VALUE = 99
# Each level is a set of shapes; a shape says for each term whether it is a product `a*2` (True) or a digit (False).
SHAPES: dict[str, tuple[tuple[bool, ...], ...]] = {
    "easy": ((False,) * 2, (False,) * 3),
    "medium": ((False,) * 4,),
    "hard": ((False,) * 5, (False,) * 6),
    "hardest": ((True, False, False),),
    "ood_long": ((False,) * 7, (False,) * 8),
    "ood_two": ((True, True),),
    "ood_mix": ((False, True, False), (False, False, True)),
}
# Only on request, for evaluation: unlike those above, a model that has learned `hardest` solves a part of them.
EXTRA_SHAPES: dict[str, tuple[tuple[bool, ...], ...]] = {
    "ood_short": ((True, False),),
    "ood_chain": ((True, False, False, False), (True, False, False, False, False)),
}
TRAIN_SHARES = {"easy": 0.2, "medium": 0.3, "hard": 0.2, "hardest": 0.3}
PRETRAIN_SHARES = {"easy": 0.65, "medium": 0.27, "hard": 0.08}
# Evaluation takes at most this part of a shape's distinct questions where training uses the shape too: there are 126 of
# two terms.
MAX_HELD_OUT = 1 / 3
_COUNTABLE = 4  # shapes of up to so many terms are enumerated; longer ones have hundreds of thousands of questions


@dataclass(frozen=True, slots=True)
class Question:
    """A chain, e.g. `7*2+3-4`: `text` is what the user asks, `solution` the demonstration."""

    level: str
    expression: str
    steps: tuple[str, ...]
    answer: str

    @property
    def text(self) -> str:
        return f"{self.expression}=?"

    @property
    def solution(self) -> str:
        lines = "".join(f"{step}\n" for step in self.steps)
        return f"<think>{lines}</think>\\boxed{{{self.answer}}}"


@dataclass(frozen=True, slots=True)
class Split:
    """Questions of the three files. Evaluation questions (`test`) are in neither of the others; `train` has no question
    twice.
    """

    train: list[Question]
    test: list[Question]
    pretrain: list[Question]


def solve(level: str, signs: Sequence[str], digits: Sequence[int], shape: Sequence[bool]) -> Question | None:
    """The chain with these signs before its terms (the first is "+"), or None if its value leaves 0..99 on the way.

    A product is worked out first, by addition: `7*2` is the step `7+7=14`.
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
    return Question(level, expression, tuple(steps), str(total))


def draw(level: str, shape: Sequence[bool], rng: random.Random) -> Question:
    """A random question of one shape."""
    while True:
        digits = [rng.randint(3 if doubled else 1, 9) for doubled in shape]
        signs = ["+", *(rng.choice("+-") for _ in shape[1:])]
        question = solve(level, signs, digits, shape)
        if question is not None:
            return question


@cache
def enumerate_shape(level: str, shape: tuple[bool, ...]) -> tuple[Question, ...]:
    """Every question of one shape, in a fixed order."""
    digits = product(*(range(3 if doubled else 1, 10) for doubled in shape))
    candidates = (
        solve(level, ("+", *signs), chosen, shape)
        for chosen in digits
        for signs in product("+-", repeat=len(shape) - 1)
    )
    return tuple(question for question in candidates if question is not None)


def make_split(
    seed: int = 0,
    train_size: int = 1280,
    eval_size: int = 200,
    pretrain_size: int = 14_400,
    train_shares: Mapping[str, float] = TRAIN_SHARES,
    extra_levels: Sequence[str] = (),
) -> Split:
    """Training, evaluation and pretraining questions.

    Args:
        seed: equal arguments give equal questions.
        train_size: distinct training questions, divided by `train_shares`.
        eval_size: evaluation questions of each level; a level that has fewer in all (ood_two: 77) gives what it has.
        pretrain_size: pretraining questions, drawn with repetition.
        extra_levels: of EXTRA_SHAPES, evaluated too; the other questions are the same with and without them.

    Raises:
        ValueError: a level has fewer distinct questions than asked for.
    """
    rng = random.Random(seed)
    test = [question for level, shapes in SHAPES.items() for question in _evaluation(level, shapes, eval_size, rng)]
    held_out = {question.expression for question in test}
    train: list[Question] = []
    for level, size in _sizes(train_size, train_shares).items():
        train += _distinct(level, size, held_out, rng)
    rng.shuffle(train)
    for level in extra_levels:
        test += _evaluation(level, EXTRA_SHAPES[level], eval_size, rng)
    return Split(train, test, pretraining_questions(seed, pretrain_size, held_out))


def pretraining_questions(seed: int, size: int, held_out: Collection[str]) -> list[Question]:
    """`size` questions of the levels that a base model knows, with repetition, none of them with an expression in
    `held_out`.
    """
    rng = random.Random(f"pretrain-{seed}")
    held_out = frozenset(held_out)
    questions = [
        _outside(level, held_out, rng) for level, count in _sizes(size, PRETRAIN_SHARES).items() for _ in range(count)
    ]
    rng.shuffle(questions)
    return questions


def to_row(question: Question, index: int, split: str) -> Row:
    """`question` in the shared schema. The level is part of `data_source`, so that verl's validation reports each
    level.
    """
    return Row(
        data_source=f"arithmetic/{question.level}",
        prompt=[("user", question.text)],
        target=question.solution,
        ground_truth=question.answer,
        index=index,
        split=split,
        level=question.level,
    )


def _evaluation(level: str, shapes: Sequence[tuple[bool, ...]], size: int, rng: random.Random) -> list[Question]:
    """Up to `size` distinct questions of a level, shared evenly by its shapes as far as these have enough."""
    chosen: list[Question] = []
    for position, shape in enumerate(shapes):
        wanted = (size - len(chosen)) // (len(shapes) - position)
        if len(shape) > _COUNTABLE:
            chosen += _distinct_of_shape(level, shape, wanted, frozenset(), rng)
            continue
        questions = enumerate_shape(level, shape)
        most = int(len(questions) * MAX_HELD_OUT) if level in TRAIN_SHARES else len(questions)
        chosen += rng.sample(questions, min(wanted, most))
    return chosen


def _distinct(level: str, size: int, held_out: Collection[str], rng: random.Random) -> list[Question]:
    """`size` distinct questions of a level outside `held_out`, shared by its shapes as far as these have enough."""
    chosen: list[Question] = []
    for position, shape in enumerate(SHAPES[level]):
        wanted = (size - len(chosen)) // (len(SHAPES[level]) - position)
        if len(shape) > _COUNTABLE:
            chosen += _distinct_of_shape(level, shape, wanted, held_out, rng)
            continue
        left = [question for question in enumerate_shape(level, shape) if question.expression not in held_out]
        chosen += rng.sample(left, min(wanted, len(left)))
    if len(chosen) < size:
        raise ValueError(
            f"level {level} has {len(chosen)} questions beside the evaluation's, not {size}: "
            "lower --train-size or --eval-size"
        )
    return chosen


def _distinct_of_shape(
    level: str, shape: Sequence[bool], size: int, held_out: Collection[str], rng: random.Random
) -> list[Question]:
    found: dict[str, Question] = {}
    while len(found) < size:
        question = draw(level, shape, rng)
        if question.expression not in held_out:
            found.setdefault(question.expression, question)
    return list(found.values())


def _outside(level: str, held_out: frozenset[str], rng: random.Random) -> Question:
    while True:
        question = draw(level, rng.choice(SHAPES[level]), rng)
        if question.expression not in held_out:
            return question


def _sizes(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`total` divided by `shares`; the rounding's remainder goes to the first levels."""
    sizes = {level: int(total * share) for level, share in shares.items()}
    for level in list(sizes)[: total - sum(sizes.values())]:
        sizes[level] += 1
    return sizes


def main(arguments: Sequence[str] | None = None) -> None:
    """Write train.parquet, test.parquet and pretrain.parquet."""
    parser = argparse.ArgumentParser(
        prog="data_preprocess.arithmetic", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
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
            f"{name}.parquet": [to_row(question, i, name) for i, question in enumerate(questions)]
            for name, questions in sets.items()
        },
    )
    for name, questions in sets.items():
        print(f"{name}.parquet: {len(questions)} questions")


if __name__ == "__main__":
    main()
