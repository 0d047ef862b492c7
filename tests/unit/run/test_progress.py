"""The line of a step, when it is shown, and the time that is left."""

import time

import pytest

from verl_relift.run import console
from verl_relift.run.progress import Pace, Progress, clock, describe, is_due, stage, validated, validation_accuracy

RECORD = {
    "step": 12,
    "time": 100.0,
    "critic/score/mean": 0.3125,
    "training/accuracy": 0.25,
    "relift/hardest_questions": 4,
    "relift/buffer_size": 7,
    "relift/sft_updates": 2,
    "relift/sft_loss": 1.5,
    "perf/total_num_tokens": 3000,
    "timing_s/step": 2.0,
}


def test_a_step_in_one_line():
    assert describe(RECORD, 80, 125.0) == (
        "step 12/80  ETA 2:05  reward 0.31  accuracy 0.25  hardest 4  buffer 7  supervised updates 2  1,500 tokens/s"
        "  2.0 s/step"
    )


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"step": 3, "time": 1.0, "relift/sft_loss": 1.25, "relift/sft_updates": 3, "timing_s/step": 0.5},
         "step 3/9  supervised updates 3  supervised loss 1.250  0.5 s/step"),
        ({"step": 0, "time": 1.0, "val-core/a/acc/mean@1": 0.25, "val-core/b/acc/mean@1": 0.75},
         "step 0/9  validation 0.500"),
        ({"step": 1, "time": 1.0, "critic/score/mean": None, "timing_s/step": 0.5}, "step 1/9  0.5 s/step"),
        ({"step": 1, "time": 1.0, "critic/score/mean": 0.5, "method/demonstrations_joined": 12.0},
         "step 1/9  reward 0.50  demonstrations 12"),
    ],
    ids=["without-rollouts", "validation-before-training", "not-finite", "demonstrations-in-groups"],
)  # fmt: skip
def test_what_a_record_lacks_is_left_out(record, line):
    assert describe(record, 9, None) == line


def test_a_source_has_one_accuracy():
    record = {"val-core/a/reward/mean@1": 7.0, "val-core/a/acc/mean@1": 0.5, "val-aux/a/score/mean@1": 9.0}
    assert validation_accuracy(record) == 0.5
    assert validation_accuracy({"val-core/a/reward/mean@4": 0.25}) == 0.25
    assert validation_accuracy(RECORD) is None


def test_durations():
    assert [clock(s) for s in (0, 59.6, 61, 3600, 36125)] == ["0:00", "1:00", "1:01", "1:00:00", "10:02:05"]


def test_a_run_has_at_least_ten_lines_and_one_a_minute():
    assert [step for step in range(1, 81) if is_due(step, 80, 1.0)] == [1, *range(8, 81, 8)]
    assert [step for step in range(1, 7) if is_due(step, 6, 1.0)] == [1, 2, 3, 4, 5, 6]
    assert [step for step in range(1, 500) if is_due(step, 500, 61.0)] == list(range(1, 500))


def test_the_time_left_is_that_of_the_last_steps_with_what_is_between_them():
    pace = Pace()
    assert pace.seconds_left({"step": 0, "time": 5.0}, 40) is None
    left = [pace.seconds_left({"step": i, "time": 10.0 * i, "timing_s/step": 4.0}, 40) for i in range(1, 31)]
    assert left[0] == pytest.approx(39 * 4.0)  # the start of the run is no step
    assert left[-1] == pytest.approx(10 * 10.0)  # 6 s of each 10 are validation


def test_the_stage_is_the_first_that_is_not_over():
    assert stage({}) == "generating"
    assert stage({"gen": 1.0, "collect": 0.1, "adv": 0.1}) == "updating"
    assert stage({name: 1.0 for name in ("gen", "adv", "update_actor", "update_actor_sft")}) == "sending weights"
    timers = ("gen", "adv", "update_actor", "update_actor_sft", "update_weights")
    assert stage(dict.fromkeys(timers, 1.0)) == "ending the step"


def test_the_clock_is_that_of_what_the_run_does_now(monkeypatch):
    lines, now, doing = [], [100.0], iter(["starting", "starting", "validating", "generating", "generating"])
    monkeypatch.setattr(console, "live", lines.append)
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress()
    progress.doing = lambda: next(doing)

    def wait(_):
        now[0] += 5
        return len(lines) == 5

    monkeypatch.setattr(progress._over, "wait", wait)
    progress._tick()
    assert lines == ["starting 0:00", "starting 0:05", "validating 0:00", "generating 0:00", "generating 0:05"]


def test_a_validations_reward_is_shown_where_it_is_not_the_accuracy():
    record = {"val-core/quiz/acc/mean@1": 0.0, "val-aux/quiz/reward/mean@1": 0.18, "val-aux/quiz/score/mean@1": 0.18}
    assert validated(record) == "0.000 (reward 0.180)"
    assert validated(record | {"val-aux/quiz/reward/mean@1": 0.0}) == "0.000"
    assert validated({"val-core/a/reward/mean@4": 0.25}) == "0.250" and validated({"step": 3}) == ""


def test_validations_and_the_last_step_are_always_said(monkeypatch):
    said = []
    monkeypatch.setattr(console, "say", said.append)
    monkeypatch.setattr(console, "seconds_of_silence", lambda: 0.0)
    progress = Progress()
    for step in range(1, 101):
        validated = {"val-core/a/acc/mean@1": 0.5} if step == 37 else {}
        progress.update({"step": step, "time": 1.0 * step, "timing_s/step": 1.0, **validated}, 100)
    steps = [int(line.split("/")[0].removeprefix("step ")) for line in said]
    assert steps == [1, 10, 20, 30, 37, *range(40, 101, 10)]
    assert progress.records["first"]["step"] == 1 and progress.records["last"]["step"] == 100
    assert progress.records["validation"]["step"] == 37


def test_the_first_step_is_not_the_validation_before_it(capsys):
    progress = Progress()
    progress.update({"step": 10, "time": 0.0, "val-core/a/acc/mean@1": 0.5}, 24)
    progress.update({"step": 11, "time": 9.0, "timing_s/step": 1.0, "critic/score/mean": 0.25}, 24)
    assert progress.records["first"]["step"] == 11 and progress.records["validation"]["step"] == 10
