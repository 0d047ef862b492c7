"""The hook, called by verl's reward loop as the configuration names it."""

import asyncio
import inspect
from collections import Counter

import numpy as np
import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.metric_utils import process_validation_metrics
from verl.trainer.ppo.reward import get_custom_reward_fn

from verl_relift.rewards import Grade, GradeOutcome, RewardValues, verl_hook
from verl_relift.rewards.grader import shared_grader
from verl_relift.rewards.settings import Convention, GradingRules, Thinking
from verl_relift.rewards.verl_hook import score_of

RIGHT = "<think>7+7=14</think>\\boxed{13}"


def load(**reward_kwargs):
    function = {"path": "pkg://verl_relift.rewards.verl_hook", "name": "compute_score", "reward_kwargs": reward_kwargs}
    return get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": function}}))


def call(function, response, ground_truth="13"):
    return asyncio.run(
        function(
            data_source="arithmetic", solution_str=response, ground_truth=ground_truth, extra_info={"num_turns": None}
        )
    )


def test_verl_awaits_the_hook():
    """verl's managers check `iscoroutinefunction`; a plain function would block one of their threads."""
    assert inspect.iscoroutinefunction(load())


def test_columns():
    assert call(load(), RIGHT) == {"score": 1.0, "acc": 1.0, "outcome": "correct", "pred": "13"}
    assert call(load(), "no") == {"score": 0.0, "acc": 0.0, "outcome": "no_answer", "pred": ""}
    assert call(load(), "\\boxed{x+\\sqrt{4}}", "x+2")["outcome"] == "correct"


def test_columns_have_one_type_over_all_outcomes():
    columns = [score_of(Grade(outcome), RewardValues()) for outcome in GradeOutcome]
    for key in columns[0]:
        assert {type(column[key]) for column in columns} == {type(columns[0][key])}
        assert np.array([column[key] for column in columns]).dtype.kind in "fU"


def test_rules_and_rewards_come_from_the_configuration():
    function = load(thinking="required", rewards={"bad_format": -0.5})
    assert call(function, "\\boxed{13}") == {"score": -0.5, "acc": 0.0, "outcome": "bad_format", "pred": ""}
    assert call(function, RIGHT)["score"] == 1.0
    assert call(load(conventions=["phrase"]), "Answer: (B)", "B")["score"] == 1.0


def test_verls_reward_workers_learn_from_the_settings_that_prompts_open_a_thought():
    function = load(prompt_opens_thought=True)
    assert call(function, "7+7. \\boxed{13}")["outcome"] == "no_answer"
    assert call(function, "7+7</think>\\boxed{13}")["outcome"] == "correct"


@pytest.mark.parametrize(
    ("kwargs", "error"), [({"thinking": "maybe"}, ValueError), ({"rewards": {"right": 1}}, TypeError)]
)
def test_a_wrong_setting_is_refused(kwargs, error):
    with pytest.raises(error):
        call(load(**kwargs), RIGHT)


def test_validation_metrics_take_the_columns():
    """verl averages the numbers, votes over `pred` and omits the strings."""
    scores = [call(load(), response) for response in (RIGHT, RIGHT, "\\boxed{12}", "no")]
    infos = {key: [score[key] for score in scores] for key in scores[0]}
    metrics = process_validation_metrics(["arithmetic"] * 4, ["q"] * 4, infos)["arithmetic"]
    assert metrics["acc"]["mean@4"] == 0.5
    assert "outcome" not in metrics
    assert Counter(infos["outcome"])["correct"] == 2


def test_the_judge_runs_before_the_first_answer_that_needs_it():
    rules = {
        "thinking": "optional",
        "conventions": ["phrase"],
        "allow_unevaluated": True,
    }  # rules that no other test uses
    grader = shared_grader(GradingRules(Thinking.OPTIONAL, (Convention.PHRASE,), True))
    verl_hook.start_judge(**rules, rewards={"bad_format": -0.5}).join()
    with grader:
        assert grader.pool._fork_server.poll() is None
        assert call(load(**rules), "Answer: $x+\\sqrt{4}$", "x+2")["outcome"] == "correct"


def test_a_judge_that_does_not_start_is_logged(monkeypatch, caplog):
    def start(pool):
        raise RuntimeError("The math judge did not start (no sympy).")

    monkeypatch.setattr("verl_relift.rewards.judge.worker_pool.WorkerPool.start", start)
    verl_hook.start_judge().join()
    assert "did not start (no sympy)" in caplog.text
