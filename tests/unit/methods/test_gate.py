"""Which questions of a step give a demonstration."""

from random import Random

import pytest

from tests.unit.methods.steps import group, question
from verl_relift.methods.gate import Select, TriggerSettings, gate, is_hardest
from verl_relift.settings import SettingsError

GROUPS = [
    group(question(1), 0.0, 0.0, 0.0, 0.0),
    group(question(2), 1.0, 0.0, 0.0, 0.0),
    group(question(3), 1.0, 1.0, 1.0, 1.0),
    group(question(4), 0.0, 0.0, 0.0, 0.0),
]


def ids(questions) -> list[str]:
    return [asked.id for asked in questions]


def test_hardest_is_at_most_the_threshold():
    assert is_hardest(0.0, 0.0)
    assert not is_hardest(0.125, 0.0)
    assert is_hardest(0.125, 0.125)


def test_accuracy_is_the_mean_of_what_is_right_not_of_the_rewards():
    assert group(question(1), -1.0, 1.0, acc=0.5).accuracy == 0.5
    assert group(question(1), -1.0, 1.0).accuracy == 0.5


def test_questions_that_every_rollout_fails_are_chosen_in_their_order():
    gated = gate(GROUPS, TriggerSettings(), Random(0))
    assert ids(gated.chosen) == ["q1", "q4"] and ids(gated.passed) == ["q2", "q3"]
    assert gated.metrics == {"relift/hardest_questions": 2, "relift/hardest_fraction": 0.5}


def test_a_threshold_takes_questions_with_some_right():
    assert ids(gate(GROUPS, TriggerSettings(max_accuracy=0.25), Random(0)).chosen) == ["q1", "q2", "q4"]


def test_all_takes_every_question():
    assert ids(gate(GROUPS, TriggerSettings(select=Select.ALL), Random(0)).chosen) == ["q1", "q2", "q3", "q4"]


def test_other_takes_as_many_of_the_rest():
    groups = [*GROUPS, *(group(question(n), 1.0, 1.0) for n in range(5, 15))]
    drawn = [ids(gate(groups, TriggerSettings(select=Select.OTHER), Random(seed)).chosen) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len({tuple(d) for d in drawn}) > 1
    assert all(len(d) == 2 and not set(d) & {"q1", "q4"} for d in drawn)


def test_a_question_is_chosen_with_the_probability_of_a_wrong_rollout():
    settings = TriggerSettings(select=Select.PROPORTIONAL)
    drawn = [ids(gate(GROUPS, settings, Random(seed)).chosen) for seed in range(400)]
    assert all({"q1", "q4"} <= set(d) and "q3" not in d for d in drawn)
    assert sum("q2" in d for d in drawn) == pytest.approx(300, abs=40)
    assert ids(gate(GROUPS, settings, Random(5)).chosen) == ids(gate(GROUPS, settings, Random(5)).chosen)
    one, other = gate(GROUPS, settings, Random(5)), gate(GROUPS[::-1], settings, Random(5))
    assert set(ids(one.chosen)) == set(ids(other.chosen))  # whatever their order


def test_two_draws_of_a_question_are_two_groups():
    twice = [group(question(1, draw="1-000000"), 0.0), group(question(1, draw="1-000001"), 1.0)]
    gated = gate(twice, TriggerSettings(), Random(0))
    assert [q.draw for q in gated.chosen] == ["1-000000"] and [q.draw for q in gated.passed] == ["1-000001"]


def test_a_threshold_of_one_would_take_everything():
    with pytest.raises(SettingsError, match=r"method\.trigger\.max_accuracy=1\.0 must be in \[0, 1\)"):
        TriggerSettings(max_accuracy=1.0)
