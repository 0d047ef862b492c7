"""Measures how the cost of each stage grows with a size, and compares the fitted exponent with theory."""

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.engine.batch import MAX_TOKENS, Rollouts, Shape, save_model
from benchmarks.engine.matrix_work import attention_flops, linear_flops
from benchmarks.sides import Side

TOLERANCE = 0.1  # how far an exponent may exceed that of theory

SHAPE = Shape(hidden=256, layers=4, ffn=640, heads=4, kv_heads=2, vocabulary=1024)
BATCHES = [Rollouts(sequences=n, prompt=32, shortest=96, longest=160) for n in (4, 8, 16, 32, 64)]
LENGTHS = [Rollouts(sequences=8, prompt=32, shortest=n, longest=n) for n in (32, 64, 128, 256, 512, 1024)]
WIDTHS = [128, 256, 512]
AT_WIDTHS = Rollouts(sequences=16, prompt=32, shortest=96, longest=160)
BUFFER_SIZES = [1_000, 10_000, 100_000]
TAKEN = 64  # demonstrations per update
ROLLOUT_COUNTS = [1_000, 10_000, 100_000, 1_000_000]
CHARACTERS = [250, 1_000, 4_000, 16_000]


@dataclass(frozen=True)
class Curve:
    """The times of one stage over one size.

    Attributes:
        stage: name of the stage.
        against: name of the size.
        sizes: the measured sizes.
        theory: exponent of theory.
        seconds: times by turn and size.
    """

    stage: str
    against: str
    sizes: list[float]
    theory: float
    seconds: list[list[float]]

    @property
    def medians(self) -> list[float]:
        """Median seconds of each size."""
        return [statistics.median(column) for column in zip(*self.seconds, strict=True)]

    @property
    def slope(self) -> float:
        """Exponent fitted to the medians."""
        return fit_slope(self.sizes, self.medians)

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the curve's row in the table."""
        slopes = [fit_slope(self.sizes, turn) for turn in self.seconds]
        low, high = (self.medians[i] for i in (0, -1))
        return (
            self.stage,
            f"{self.against}, {self.sizes[0]:,g} to {self.sizes[-1]:,g}",
            f"{low:.2g} to {high:.2g} s",
            f"{self.slope:.2f} ({min(slopes):.2f} to {max(slopes):.2f})",
            f"{self.theory:.2f}",
            "**worse**" if self.slope > self.theory + TOLERANCE else "no",
        )


def fit_slope(sizes: list[float], values: list[float]) -> float:
    """Return the exponent k of the power law value = c * size**k, by least squares of logarithms.

    Args:
        sizes: positive numbers.
        values: positive numbers, one per size.

    Raises:
        statistics.StatisticsError: there are fewer than two distinct sizes.
    """
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(v) for v in values]).slope


def flops(shape: Shape, rollouts: Rollouts) -> int:
    """Return the operations of an update's matrix products; a forward pass has a third of them."""
    lengths = rollouts.lengths()
    return linear_flops(shape, sum(lengths)) + attention_flops(shape, lengths)


def of_width(width: int) -> Shape:
    """Return the model of the other curves at another width, with proportionally more heads."""
    heads = width // SHAPE.head_dim
    return Shape(width, SHAPE.layers, width * SHAPE.ffn // SHAPE.hidden, heads, heads // 2, SHAPE.vocabulary)


def engine_curves(folder: Path, turns: int) -> Iterator[Curve]:
    """Measure actor update and log-probs over batch, response length, width and ranks; every turn has all points.

    Args:
        folder: where the models are written.
        turns: number of turns after a warm-up turn.

    Yields:
        One curve per stage and size.
    """
    shapes = {width: of_width(width) for width in WIDTHS}
    for width, shape in shapes.items():
        save_model(shape, folder / str(width))
    with ExitStack() as stack:
        sides = {
            width: stack.enter_context(Side("benchmarks.engine.worker", str(folder / str(width)), "1", "false"))
            for width in WIDTHS
        }
        widest = str(folder / str(WIDTHS[-1]))
        two_ranks = stack.enter_context(Side("benchmarks.engine.worker", widest, "2", "true", ranks=2))
        base = sides[SHAPE.hidden]
        groups = {
            "sequences": (
                [(r.sequences, base, r) for r in BATCHES],
                _slope_of([(r.sequences, SHAPE, r) for r in BATCHES]),
            ),
            "response tokens": (
                [(r.longest, base, r) for r in LENGTHS],
                _slope_of([(r.longest, SHAPE, r) for r in LENGTHS]),
            ),
            "width": (
                [(width, sides[width], AT_WIDTHS) for width in WIDTHS],
                _slope_of([(width, shapes[width], AT_WIDTHS) for width in WIDTHS]),
            ),
            "ranks": ([(1, sides[WIDTHS[-1]], AT_WIDTHS), (2, two_ranks, AT_WIDTHS)], -1.0),
        }
        for stage, do in (("actor update", "update"), ("log-probs", "log_prob")):
            measured: dict[str, list[list[float]]] = {against: [] for against in groups}
            for turn in range(turns + 1):
                for against, (points, _) in groups.items():
                    seconds = [
                        max(a["seconds"] for a in side.ask(do, rollouts=asdict(rollouts), max_tokens=MAX_TOKENS))
                        for _, side, rollouts in points
                    ]
                    if turn:  # turn 0 is the warm-up
                        measured[against].append(seconds)
            for against, (points, theory) in groups.items():
                yield Curve(stage, against, [size for size, *_ in points], theory, measured[against])


def _slope_of(points: list[tuple[float, Shape, Rollouts]]) -> float:
    """Return the exponent of theory: that of the matrix products' operations over the same points."""
    return fit_slope([size for size, *_ in points], [flops(shape, rollouts) for _, shape, rollouts in points])


def collecting_curves(turns: int) -> Iterator[Curve]:
    """Measure the buffer's operations, the gate, and the tokenization of demonstrations.

    Args:
        turns: number of turns.

    Yields:
        One curve per stage.
    """
    from verl_relift.demonstrations.verify import Solution, make_demonstrations
    from verl_relift.methods.gate import TriggerSettings, gate
    from verl_relift.quickstart.base_model import build_tokenizer
    from verl_relift.rewards.function import RewardFunction
    from verl_relift.settings import DemonstrationSettings
    from verl_relift.types import Question

    operations: dict[str, tuple[Callable[[int], float], float]] = {
        "buffer: add one": (_time_add, 0.0),
        "buffer: add one, full": (_time_add_full, 0.0),
        f"buffer: take {TAKEN}": (_time_take, 0.0),
        "buffer: state_dict": (_time_state, 1.0),
    }
    for stage, (measure, theory) in operations.items():
        seconds = [[measure(size) for size in BUFFER_SIZES] for _ in range(turns)]
        yield Curve(stage, "waiting", BUFFER_SIZES, theory, seconds)

    groups = [_groups(count, 8) for count in ROLLOUT_COUNTS]
    seconds = [[_seconds(lambda g=g: gate(g, TriggerSettings(), Random(1))) for g in groups] for _ in range(turns)]
    yield Curve("gate: choose questions", "rollouts", ROLLOUT_COUNTS, 1.0, seconds)
    del groups

    tokenizer, reward = build_tokenizer(), RewardFunction()
    settings = DemonstrationSettings(verify=False, max_tokens=max(CHARACTERS) + 1)

    def tokenize(characters: int) -> float:
        text = "".join(random.Random(characters).choices("0123456789+-=", k=characters))
        solution = Solution(Question("q", "1-0", ({"role": "user", "content": "q"},), "1"), text, step=1)
        return _seconds(lambda: make_demonstrations([solution], tokenizer, lambda question: (1,), settings, reward))

    tokenize(CHARACTERS[0])  # warm-up
    seconds = [[tokenize(characters) for characters in CHARACTERS] for _ in range(turns)]
    yield Curve("tokenizing a demonstration", "characters", CHARACTERS, 1.0, seconds)


def _groups(count: int, size: int) -> list[Any]:
    """Return groups of `size` rollouts, `count` rollouts in all, half of them correct at random."""
    from verl_relift.types import GradedRollout, Group, Prompt, Question

    rng, messages = Random(1), ({"role": "user", "content": "q"},)
    infos = {0.0: {"outcome": "wrong", "acc": 0.0}, 1.0: {"outcome": "correct", "acc": 1.0}}
    groups = []
    for number in range(count // size):
        rewards = [float(rng.random() < 0.5) for _ in range(size)]
        rollouts = tuple(GradedRollout(f"{number}_{i}_0", r, r, infos[r], tokens=1) for i, r in enumerate(rewards))
        groups.append(Group(Prompt.bare(Question(str(number), str(number), messages, "1")), rollouts))
    return groups


def _demonstration(i: int) -> Any:
    from verl_relift.demonstrations.buffer import Demonstration

    return Demonstration(question=f"question {i}", prompt_ids=(1,) * 8, response_ids=(2,) * 8, step=i)


def _filled(size: int, capacity: int | None = None) -> Any:
    from verl_relift.demonstrations.buffer import DemonstrationBuffer
    from verl_relift.settings import BufferSettings

    buffer = DemonstrationBuffer(BufferSettings(capacity=capacity))
    for i in range(size):
        buffer.add(_demonstration(i))
    return buffer


def _time_adds(buffer: Any, first: int) -> float:
    new = [_demonstration(first + i) for i in range(1000)]

    def add() -> None:
        for demonstration in new:
            buffer.add(demonstration)

    return _seconds(add) / len(new)


def _time_add(size: int) -> float:
    return _time_adds(_filled(size), size)


def _time_add_full(size: int) -> float:
    """Return the seconds to add one to a full buffer after many evictions, as in a long run."""
    buffer = _filled(size, capacity=size)
    for i in range(min(size // 2, 10_000)):
        buffer.add(_demonstration(size + i))
    return _time_adds(buffer, 2 * size)


def _time_take(size: int) -> float:
    buffer = _filled(size)
    return _seconds(lambda: buffer.take(TAKEN, Random(1)))


def _time_state(size: int) -> float:
    buffer = _filled(size)
    return _seconds(buffer.state_dict)


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def plot(curves: list[Curve], path: Path) -> None:
    """Draw one log-log panel per curve: medians with their range, and the line of theory.

    Args:
        curves: the curves.
        path: image to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = 4
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.2 * columns, 2.6 * rows), squeeze=False)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    for axis, curve in zip(axes.flat, curves, strict=False):
        turns = list(zip(*curve.seconds, strict=True))
        axis.fill_between(curve.sizes, [min(t) for t in turns], [max(t) for t in turns], alpha=0.2)
        axis.plot(curve.sizes, curve.medians, "o-", markersize=4, label=f"measured, slope {curve.slope:.2f}")
        anchor = curve.medians[-1] / curve.sizes[-1] ** curve.theory
        theory = [anchor * size**curve.theory for size in curve.sizes]
        axis.plot(curve.sizes, theory, "--", color="gray", label=f"theory, slope {curve.theory:.2f}")
        axis.set(xscale="log", yscale="log", title=curve.stage, xlabel=curve.against, ylabel="seconds")
        axis.set_xticks(curve.sizes, [f"{size:,g}" for size in curve.sizes], fontsize=8)
        axis.minorticks_off()
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
