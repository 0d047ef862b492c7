"""The pure rooms: hardest questions, buffer, schedule."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_relift.demonstrations.buffer import Demonstration, DemonstrationBuffer, Evicted
from verl_relift.methods.gate import group_accuracy, is_hardest
from verl_relift.methods.schedule import sft_learning_rate, updates_due
from verl_relift.settings import BufferOrder, BufferSettings, LRSchedule, Schedule, ScheduleSettings, SFTSettings


def demonstration(question: str, step: int = 1) -> Demonstration:
    return Demonstration(question, prompt_ids=(1, 2), response_ids=(3, 4), step=step)


def filled(*questions: str, **settings) -> DemonstrationBuffer:
    buffer = DemonstrationBuffer(BufferSettings(**settings))
    for step, question in enumerate(questions, start=1):
        buffer.add(demonstration(question, step))
    return buffer


def take(buffer: DemonstrationBuffer, count: int, seed: int = 0) -> list[Demonstration]:
    return buffer.take(count, Random(seed))


def test_accuracy_is_the_mean_of_each_group():
    accuracy = group_accuracy(["a", "b", "a", "b", "b"], [1.0, 0.0, 0.0, 0.0, 0.0])
    assert accuracy == {"a": 0.5, "b": 0.0}


def test_hardest_is_at_most_the_threshold():
    assert is_hardest(0.0, 0.0)
    assert not is_hardest(0.125, 0.0)
    assert is_hardest(0.125, 0.125)


def test_rewards_and_questions_must_have_one_length():
    with pytest.raises(ValueError):
        group_accuracy(["a", "b"], [1.0])


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


@pytest.mark.parametrize(
    ("waiting", "limit", "due"), [(0, 1, 0), (15, 1, 0), (16, 1, 1), (48, 1, 1), (48, 2, 2), (48, 9, 3)]
)
def test_adaptive_updates_are_due_when_full_batches_wait(waiting, limit, due):
    schedule = ScheduleSettings(max_updates_per_step=limit)
    assert updates_due(7, waiting, schedule, SFTSettings(batch_size=16)) == [16] * due


@pytest.mark.parametrize(
    ("kind", "step", "waiting", "multiple", "due"),
    [
        (Schedule.ALWAYS, 1, 40, 1, [16]),
        (Schedule.ALWAYS, 2, 7, 1, [7]),
        (Schedule.ALWAYS, 3, 7, 2, [6]),
        (Schedule.ALWAYS, 4, 1, 2, []),
        (Schedule.ALWAYS, 5, 0, 1, []),
        (Schedule.EVERY_K, 7, 40, 1, []),
        (Schedule.EVERY_K, 8, 40, 1, [16]),
        (Schedule.EVERY_K, 16, 3, 1, [3]),
        (Schedule.NEVER, 8, 400, 1, []),
    ],
)
def test_other_schedules_take_what_waits(kind, step, waiting, multiple, due):
    schedule = ScheduleSettings(kind=kind, every=8)
    assert updates_due(step, waiting, schedule, SFTSettings(batch_size=16), multiple) == due


def test_learning_rate_warms_up_over_supervised_updates():
    settings = SFTSettings(lr=4e-4, lr_warmup_updates=4)
    assert [sft_learning_rate(made, settings) for made in range(6)] == pytest.approx(
        [1e-4, 2e-4, 3e-4, 4e-4, 4e-4, 4e-4]
    )
    assert sft_learning_rate(0, SFTSettings(lr=4e-4)) == 4e-4


@pytest.mark.parametrize(
    ("kind", "course"),
    [
        (LRSchedule.LINEAR, [0.5, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1, 0.1]),
        (LRSchedule.COSINE, [0.5, 1.0, 1.0, 0.8681981, 0.55, 0.2318019, 0.1, 0.1]),
    ],
)
def test_learning_rate_decays_to_its_floor(kind, course):
    settings = SFTSettings(lr=1.0, lr_warmup_updates=2, lr_schedule=kind, lr_decay_updates=6, min_lr_ratio=0.1)
    assert [sft_learning_rate(made, settings) for made in range(8)] == pytest.approx(course)
