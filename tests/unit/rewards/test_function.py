"""Reward functions of every form, and what counts as right whatever they pay."""

import asyncio
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from verl_relift.rewards import verl_hook
from verl_relift.rewards.function import (
    Answer,
    RewardFunction,
    RewardFunctionFailed,
    UndefinedAccuracy,
    accuracy_of,
)


def as_number(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    return float(solution_str == ground_truth) + bonus


async def as_number_later(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    await asyncio.sleep(0)
    return as_number(data_source, solution_str, ground_truth, extra_info, bonus)


def as_dict(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    right = solution_str == ground_truth
    return {"score": right + bonus, "acc": right, "length": len(solution_str)}


async def as_dict_later(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    return as_dict(data_source, solution_str, ground_truth, extra_info, bonus)


class Reward:
    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
        return self.scale * as_number(data_source, solution_str, ground_truth, extra_info, bonus)


class LateReward(Reward):
    async def __call__(self, data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
        return super().__call__(data_source, solution_str, ground_truth, extra_info, bonus)


FORMS = [as_number, as_number_later, as_dict, as_dict_later, Reward(), LateReward()]


def score(function, text="4", correct_from=None, in_thought=False, **kwargs):
    answer = Answer(text, "4", "sums", {"level": "hard"}, in_thought)
    return asyncio.run(RewardFunction(function, correct_from, **kwargs).score(answer))


@pytest.mark.parametrize("function", FORMS)
def test_every_form_is_called_in_the_same_way(function):
    right, wrong = score(function), score(function, "5")
    assert (right.reward, right.accuracy, right.right) == (1.0, 1.0, True)
    assert (wrong.reward, wrong.accuracy, wrong.right) == (0.0, 0.0, False)
    assert {"score", "acc"} <= right.info.keys() and right.info["acc"] == 1.0


@pytest.mark.parametrize("function", FORMS)
def test_reward_kwargs_reach_every_form(function):
    """A bonus on every answer makes wrong ones 0.1, which is not right."""
    wrong = score(function, "5", correct_from=1.0, bonus=0.1)
    assert (wrong.reward, wrong.accuracy) == (0.1, 0.0)
    assert score(function, correct_from=1.0, bonus=0.1).accuracy == 1.0


def test_all_answers_of_a_list_are_scored_in_its_order():
    answers = [Answer(str(n), "4") for n in range(8)]
    for function in FORMS:
        assert [scored.right for scored in RewardFunction(function).score_all(answers)] == [n == 4 for n in range(8)]


# ---- what counts as right --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "correct_from", "accuracy"),
    [
        ({"score": 1.0}, None, 1.0),
        ({"score": 0}, None, 0.0),
        ({"score": True}, None, 1.0),
        # +1 and -1
        ({"score": -1.0}, 1.0, 0.0),
        ({"score": 1.0}, 1.0, 1.0),
        ({"score": -1.0}, 0.0, 0.0),
        ({"score": -1.0, "acc": False}, None, 0.0),
        # a bonus for the format
        ({"score": 0.1}, 0.5, 0.0),
        ({"score": 1.1}, 0.5, 1.0),
        ({"score": 0.1, "acc": 0.0}, None, 0.0),
        ({"score": 1.1, "acc": 1}, None, 1.0),
        # a penalty for the length
        ({"score": 0.6, "acc": 1.0}, None, 1.0),
        ({"score": 0.6}, 0.5, 1.0),
        # half of the tests of a program pass
        ({"score": 0.5, "acc": 0.5}, None, 0.5),
        # acc comes first
        ({"score": 0.9, "acc": 0.0}, 0.5, 0.0),
        # verl's reward managers put a bare number under acc
        ({"acc": -1.0}, 0.0, 0.0),
        ({"acc": 1.0}, None, 1.0),
        ({"acc": 1.0, "overlong": True, "overlong_reward": -0.4}, None, 1.0),
    ],
)
def test_what_counts_as_right(info, correct_from, accuracy):
    assert accuracy_of(info.get("score", -9.0), info, correct_from) == accuracy


@pytest.mark.parametrize("reward", [-1.0, 0.1, 0.5, 2.0, -0.4])
@pytest.mark.parametrize("form", [{"score": None}, {"acc": None}])
def test_a_reward_that_is_neither_0_nor_1_needs_a_rule(reward, form):
    info = dict.fromkeys(form, reward)
    with pytest.raises(UndefinedAccuracy, match=rf"returned {reward:g}, .*set relift\.reward\.correct_from to"):
        accuracy_of(reward, info, None)


@pytest.mark.parametrize("acc", [-1.0, 2.0, float("nan")])
def test_an_accuracy_out_of_range_is_named(acc):
    with pytest.raises(UndefinedAccuracy, match=rf"acc={acc:g}"):
        accuracy_of(1.0, {"score": 1.0, "acc": acc}, 0.5)


NO_NUMBERS = ["1.0", "1.0 points", b"1", None, (1.0,), [1.0], {1.0}, Ellipsis, 1j, 10**400, np.array("1"), np.ones(2)]


@pytest.mark.parametrize(
    "result",
    [
        *NO_NUMBERS,
        float("nan"),
        float("inf"),
        {"acc": 1.0},
        {},
        torch.zeros(2),
        *({"score": one} for one in NO_NUMBERS),
    ],
    ids=repr,
)
def test_what_is_no_reward_is_named(result):
    def forgetful(**_):
        return result

    message = rf"reward function returned .*forgetful of {__file__}.* for the answer '4' .*; return a finite number"
    with pytest.raises(RewardFunctionFailed, match=message) as caught:
        score(forgetful)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("acc", [*NO_NUMBERS, "yes"], ids=repr)
def test_what_is_no_accuracy_is_named(acc):
    with pytest.raises(
        UndefinedAccuracy, match=rf"returned acc=.*, which must be 1 .*of {__file__}, for the answer '4'"
    ):
        score(lambda **_: {"score": 1.0, "acc": acc})


@pytest.mark.parametrize(
    "one",
    [
        *(True, 1, 1.0, Decimal(1), Fraction(1)),
        *(np.float32(1), np.int64(1), np.bool_(True), np.array(1.0), np.ones(1)),
        *(torch.tensor(1.0), torch.tensor(True), torch.ones(1, dtype=torch.bfloat16)),
    ],
    ids=repr,
)
def test_numbers_of_every_library_are_rewards(one):
    for result in (one, {"score": one}, {"score": one, "acc": one}):
        scored = score(lambda result=result, **_: result)
        assert (scored.reward, scored.accuracy) == (1.0, 1.0)
        assert [type(scored.info[name]) for name in ("score", "acc")] == [float, float]


def runs_out(**_):
    return next(iter(()))


async def runs_out_later(**_):
    return next(iter(()))


@pytest.mark.parametrize("function", [runs_out, runs_out_later])
def test_a_function_that_raises_stop_iteration_fails_and_does_not_hang(function):
    with pytest.raises(RewardFunctionFailed, match="StopIteration"):
        RewardFunction(function).score_all([Answer("a", "b")])


async def leaves_later(**_):
    raise SystemExit(3)


def leaves(**_):
    raise SystemExit(3)


@pytest.mark.parametrize("function", [leaves, leaves_later])
def test_a_function_that_ends_the_program_has_failed(function):
    with pytest.raises(RewardFunctionFailed, match=rf"raised SystemExit: 3 \({__file__}, line \d+\) for the answer"):
        RewardFunction(function).score_all([Answer("a", "b")] * 3)


# ---- an answer that begins inside a thought --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("2+2. \\boxed{4}", "no_answer"),
        ("2+2=4</think>\\boxed{4}", "correct"),
        ("2+2</think>\\boxed{5}", "wrong"),
        ("\\boxed{4}</think>", "no_answer"),
    ],
)
def test_a_box_inside_a_thought_that_the_prompt_opened_is_not_paid(text, outcome):
    assert score(verl_hook.compute_score, text, in_thought=True).info["outcome"] == outcome


def test_a_thought_that_the_prompt_opened_counts_as_one():
    for text, outcome in (("2+2</think>\\boxed{4}", "correct"), ("<think>2+2</think>\\boxed{4}", "bad_format")):
        scored = score(verl_hook.compute_score, text, in_thought=True, thinking="required")
        assert scored.info["outcome"] == outcome


def test_an_own_function_is_told_if_it_asks():
    def asks(solution_str, prompt_opens_thought, **_):
        return float(prompt_opens_thought)

    assert [score(asks, in_thought=opened).reward for opened in (True, False)] == [1.0, 0.0]


# ---- settings of the grader ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, None),
        ({"thinking": "required", "conventions": ["boxed"], "rewards": {"bad_format": -0.1}}, None),
        ({"prompt_opens_thought": True}, None),
        ({"thinkin": "required"}, "thinkin is not a setting; choose from"),
        ({"thinking": "maybe"}, "maybe"),
        ({"conventions": []}, "conventions=[] must be a list"),
        ({"max_answer_chars": 0}, "max_answer_chars=0 must be a whole number"),
        ({"rewards": {"right": 1.0}}, "rewards.right is not a setting; choose from"),
        ({"rewards": {"wrong": 2.0}}, "rewards.wrong=2.0 must be below"),
        ({"rewards": 1.0}, "rewards=1.0 must be a group"),
        ({"prompt_opens_thought": "yes"}, "prompt_opens_thought='yes' must be true or false"),
    ],
)
def test_a_misspelt_setting_of_the_grader_is_found(settings, problem):
    found = verl_hook.setting_problem(settings)
    assert found is None if problem is None else problem in found


def second_word(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str.split()[1] == ground_truth)


class SecondWord:
    async def __call__(self, **arguments):
        return second_word(**arguments)


@pytest.mark.parametrize("function", [second_word, SecondWord(), partial(second_word)])
def test_a_function_that_raises_is_named_with_its_line_and_the_answer(function):
    message = (
        rf"raised IndexError: list index out of range \({__file__}, line \d+\) for the answer 'one' to the ground truth"
    )
    with pytest.raises(RewardFunctionFailed, match=message) as caught:
        RewardFunction(function).score_all([Answer(text="one", ground_truth="two", data_source="own", extra_info={})])
    assert caught.value.__cause__ is None and caught.traceback[-1].name == "second_word"
