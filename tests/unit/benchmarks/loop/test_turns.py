"""Tests the benchmark of the training loop: processes take turns, and the numbers made from their turns."""

import os
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.loop.turns import LoopFailed, Side, Turn, Work, fastest, play, quantile, speed_ratio
from benchmarks.report import Spread

# A loop whose k-th step takes a while, writes down when, and trains on one response of k tokens.
LOOP = """
import sys, time
from benchmarks.loop.turns import Player, Work
player, k = Player.of_environment(), 0
while player.begin_step():
    k += 1
    start = time.monotonic()
    time.sleep(0.01)
    print(start, time.monotonic(), flush=True)
    player.trained(Work([k], 2, 0.5))
print("over")
"""


@pytest.fixture
def loop(tmp_path):
    """Return a function that starts a loop by its name; the test's end ends it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    with ExitStack() as stack:

        def start(name: str, code: str = LOOP) -> Side:
            command = [sys.executable, "-c", code]
            side = Side(name, command, environment, tmp_path / f"{name}.log", tmp_path / f"{name}.socket")
            return stack.enter_context(side)

        yield start


def steps(log: Path) -> list[tuple[float, float]]:
    """Return (begin, end) of every step in a loop's log."""
    return [tuple(map(float, line.split())) for line in log.read_text().splitlines() if line[0].isdigit()]


def test_loops_work_one_at_a_time(loop, tmp_path):
    sides = [loop(name) for name in ("one", "two")]
    for side in sides:
        side.wait_until_ready()
    turns = play(sides, steps=2, warm_up=1, rounds=3)

    spans = {side.name: steps(tmp_path / f"{side.name}.log") for side in sides}
    assert [len(made) for made in spans.values()] == [8, 8]
    everything = sorted(span for made in spans.values() for span in made)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(everything))
    # Each round starts with another loop: one two | two one | one two | two one
    order = [name for span in everything for name, made in spans.items() if span in made][::2]
    assert order == ["one", "two", "two", "one"] * 2
    # Steps 1 and 2 were the warm-up.
    for made in turns.values():
        assert [turn.work for turn in made] == [Work([k, k + 1], 4, 1.0) for k in (3, 5, 7)]
        assert all(turn.steps == 2 and 0.02 <= turn.seconds < 10 for turn in made)


def test_a_loop_ends_when_there_are_no_turns_left(loop, tmp_path):
    with loop("one") as side:
        side.wait_until_ready()
        side.take_turn(1, idle=[])
    assert (tmp_path / "one.log").read_text().splitlines()[-1] == "over"


def test_processor_time_of_waiting_loops_is_measured(loop):
    spinning = (
        "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()\n"
    )
    slow = LOOP.replace("time.sleep(0.01)", "time.sleep(0.5)")
    busy, quiet = loop("busy", spinning + slow), loop("quiet", slow)
    for side in (busy, quiet):
        side.wait_until_ready()
    assert quiet.take_turn(1, idle=[busy]).idle_cpu_share > 0.1
    assert busy.take_turn(1, idle=[quiet]).idle_cpu_share < 0.1


@pytest.mark.parametrize("when", ["before its first step", "in a turn"])
def test_a_loop_that_dies_is_reported_with_its_log(loop, when):
    death = "raise RuntimeError('no such model')"
    side = loop("one", death if when == "before its first step" else LOOP.replace("time.sleep(0.01)", death))
    with pytest.raises(LoopFailed, match="no such model"):
        side.wait_until_ready()
        side.take_turn(1, idle=[])


def turn(seconds: float, *lengths: int, steps: int = 1) -> Turn:
    return Turn(steps, seconds, Work(list(lengths), prompt_tokens=10))


def test_rates_of_a_turn():
    made = turn(4.0, 20, 10, steps=2)
    assert (made.seconds_per_step, made.response_rate, made.token_rate) == (2.0, 7.5, 10.0)


def test_ratio_is_taken_round_by_round():
    """The machine is half as fast in the second round; the ratio is one of tokens, not of seconds."""
    ours = [turn(1.0, 30), turn(2.0, 30), turn(1.0, 20)]
    theirs = [turn(1.0, 15), turn(2.0, 15), turn(1.0, 20)]
    assert speed_ratio(ours, theirs) == Spread(2.0, 1.0, 2.0)
    assert speed_ratio(ours, theirs).text(1) == "2.0 (1.0 to 2.0)"
    with pytest.raises(ValueError):
        speed_ratio(ours, theirs[:2])


def test_fastest_has_the_largest_median():
    assert fastest({"one": [turn(1.0, 9), turn(1.0, 1), turn(1.0, 1)], "two": [turn(1.0, 2)] * 3}) == "two"


@pytest.mark.parametrize(("fraction", "value"), [(0.0, 1), (0.1, 1), (0.11, 2), (0.5, 5), (1.0, 10)])
def test_quantile(fraction, value):
    assert quantile([7, 1, 3, 2, 10, 6, 5, 4, 9, 8], fraction) == value
