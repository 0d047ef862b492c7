"""The buffer of waiting demonstrations."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_relift.demonstrations.buffer import Demonstration, DemonstrationBuffer, Evicted
from verl_relift.settings import BufferOrder, BufferSettings


def demonstration(question: str, step: int = 1) -> Demonstration:
    return Demonstration(question, prompt_ids=(1, 2), response_ids=(3, 4), step=step)


def filled(*questions: str, **settings) -> DemonstrationBuffer:
    buffer = DemonstrationBuffer(BufferSettings(**settings))
    for step, question in enumerate(questions, start=1):
        buffer.add(demonstration(question, step))
    return buffer


def take(buffer: DemonstrationBuffer, count: int, seed: int = 0) -> list[Demonstration]:
    return buffer.take(count, Random(seed))


def test_takes_what_has_waited_longest():
    buffer = filled("a", "b", "c")
    assert [d.question for d in take(buffer, 2)] == ["a", "b"]
    assert [d.question for d in take(buffer, 1)] == ["c"]


def test_takes_nothing_if_too_few_wait():
    buffer = filled("a")
    with pytest.raises(ValueError, match="2 demonstrations asked for, 1 waiting"):
        take(buffer, 2)
    assert len(buffer) == 1


def test_one_demonstration_per_question():
    buffer = filled("a")
    with pytest.raises(ValueError, match="waiting already"):
        buffer.add(demonstration("a", 9))


def test_renewing_keeps_the_turn_and_restarts_the_age():
    buffer = filled("a", "b", max_age_steps=3)
    buffer.renew("a", 5)
    buffer.expire(8)
    assert "a" in buffer and "b" not in buffer
    assert buffer.evicted == {Evicted.AGE: 1}
    assert take(buffer, 1)[0].step == 5


def test_beyond_the_capacity_the_oldest_goes():
    buffer = filled("a", "b", "c", capacity=2)
    assert [d.question for d in take(buffer, 2)] == ["b", "c"]
    assert buffer.evicted == {Evicted.CAPACITY: 1}


def test_last_in_first_out():
    buffer = filled("a", "b", "c", order=BufferOrder.LIFO)
    assert [d.question for d in take(buffer, 2)] == ["c", "b"]
    assert [d.question for d in take(buffer, 1)] == ["a"]


def test_random_order_is_the_generators():
    names = [f"q{i}" for i in range(20)]
    drawn = [[d.question for d in take(filled(*names, order=BufferOrder.RANDOM), 5, seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 5 and drawn[0] != names[:5]


def test_a_solved_question_leaves_only_if_the_settings_say_so():
    kept = filled("a", "b")
    kept.drop_solved("a")
    assert "a" in kept
    dropping = filled("a", "b", drop_solved=True)
    dropping.drop_solved("a")
    dropping.drop_solved("never seen")
    assert "a" not in dropping and "b" in dropping
    assert dropping.evicted == {Evicted.SOLVED: 1}


questions = st.lists(st.text("abcdef", min_size=1, max_size=2), unique=True, max_size=12)


@given(questions, st.integers(1, 5), st.integers(0, 20))
def test_every_demonstration_leaves_once(names, batch, max_age):
    """Used, evicted or still waiting: nothing is lost and nothing used twice."""
    buffer = DemonstrationBuffer(BufferSettings(capacity=8, max_age_steps=max(1, max_age)))
    used = []
    for step, name in enumerate(names):
        buffer.add(demonstration(name, step))
        buffer.expire(step)
        while len(buffer) >= batch:
            used += [d.question for d in take(buffer, batch)]
    assert len(used) == len(set(used))
    assert len(used) + len(buffer) + sum(buffer.evicted.values()) == len(names)


@given(questions, st.integers(0, 6))
def test_state_survives_json(names, taken):
    buffer = filled(*names, capacity=9)
    take(buffer, min(taken, len(buffer)))
    state = json.loads(json.dumps(buffer.state_dict()))
    other = DemonstrationBuffer(BufferSettings(capacity=9))
    other.load_state_dict(state)
    assert other.state_dict() == buffer.state_dict()
    assert take(other, len(other)) == take(buffer, len(buffer))
