"""When supervised updates are due, and their learning rate."""

import pytest

from verl_relift.methods.schedule import LearningRate, LRSchedule, Schedule, ScheduleSettings, updates_due


@pytest.mark.parametrize(
    ("waiting", "limit", "due"), [(0, 1, 0), (15, 1, 0), (16, 1, 1), (48, 1, 1), (48, 2, 2), (48, 9, 3)]
)
def test_adaptive_updates_are_due_when_full_batches_wait(waiting, limit, due):
    schedule = ScheduleSettings(max_updates_per_step=limit)
    assert updates_due(7, waiting, 16, schedule) == [16] * due


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
    assert updates_due(step, waiting, 16, schedule, multiple) == due


def test_learning_rate_warms_up_over_supervised_updates():
    settings = LearningRate(lr=4e-4, lr_warmup_updates=4)
    assert [settings.learning_rate(made) for made in range(6)] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4, 4e-4, 4e-4])
    assert LearningRate(lr=4e-4).learning_rate(0) == 4e-4


@pytest.mark.parametrize(
    ("kind", "course"),
    [
        (LRSchedule.LINEAR, [0.5, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1, 0.1]),
        (LRSchedule.COSINE, [0.5, 1.0, 1.0, 0.8681981, 0.55, 0.2318019, 0.1, 0.1]),
    ],
)
def test_learning_rate_decays_to_its_floor(kind, course):
    settings = LearningRate(lr=1.0, lr_warmup_updates=2, lr_schedule=kind, lr_decay_updates=6, min_lr_ratio=0.1)
    assert [settings.learning_rate(made) for made in range(8)] == pytest.approx(course)
