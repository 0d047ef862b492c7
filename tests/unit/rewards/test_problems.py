"""What is set about rewards and would be ignored is named, with one line."""

import pytest

from verl_relift.rewards.problems import reward_problems
from verl_relift.run.composition import Arguments

KWARGS = "reward.custom_reward_function.reward_kwargs"
AGENT_LOOP = "relift.rollout.batched=false reward.num_workers=8 "


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("custom_reward_function.path=mine.py", "custom_reward_function.path=mine.py has no effect"),
        ("custom_reward_function.name=mine", "custom_reward_function.name=mine has no effect"),
        ("reward_model.reward_manager=dapo", "reward_model.reward_manager=dapo has no effect"),
        ("reward_model.enable=true", "reward_model.enable=True has no effect"),
        ("sandbox_fusion.url=http://127.0.0.1", "sandbox_fusion.url=http://127.0.0.1 has no effect"),
        ("data.reward_fn_key=source", "data.reward_fn_key=source has no effect"),
        ("reward.reward_manager.name=dapo", "reward.reward_manager.name=dapo has no effect on rollouts in batches"),
        ("reward.reward_manager.name=gdpo", "reward.reward_manager.name=gdpo has no effect on rollouts in batches"),
        ("reward.reward_manager.source=importlib", "reward.reward_manager.source=importlib has no effect"),
        ("reward.reward_manager.module.path=mine.py", "reward.reward_manager.module.path=mine.py has no effect"),
        ("+reward.reward_kwargs.overlong_buffer_cfg.enable=true", "reward.reward_kwargs={'overlong_buffer_cfg': "),
        ("+reward.reward_kwargs.max_resp_len=64", "reward.reward_kwargs={'max_resp_len': 64} has no effect"),
        ("reward.sandbox_fusion.url=http://127.0.0.1", "reward.sandbox_fusion.url=http://127.0.0.1 has no effect"),
        (
            "+reward.custom_reward_function.reward_kwargs.thinkin=required",
            "reward.custom_reward_function.reward_kwargs: thinkin is not a setting",
        ),
        ("relift.reward.correct_from=1", "relift.reward.correct_from=1 has no effect: this package's reward"),
        (
            f"+{KWARGS}.conventions=boxed",
            f"{KWARGS}: conventions='boxed' must be a list of at least one of boxed, hash",
        ),
        (f"+{KWARGS}.conventions=[boxd]", f"{KWARGS}: conventions=['boxd'] must be a list of at least one of boxed"),
        (f"+{KWARGS}.thinking=yes", f"{KWARGS}: thinking='yes' must be one of optional, required"),
        (f"+{KWARGS}.allow_unevaluated='no'", f"{KWARGS}: allow_unevaluated='no' must be true or false"),
        (f"+{KWARGS}.max_answer_chars=-5", f"{KWARGS}: max_answer_chars=-5 must be a whole number of at least 1"),
        (f"+{KWARGS}.rewards={{correct:yes}}", f"{KWARGS}: rewards.correct='yes' must be a finite number"),
        (f"+{KWARGS}.rewards={{wrong:2}}", f"{KWARGS}: rewards.wrong=2 must be below rewards.correct=1.0"),
        (AGENT_LOOP + "data.reward_fn_key=source", "data.reward_fn_key=source has no effect"),
    ],
)
def test_what_would_be_ignored_is_named(overrides, message):
    (line,) = reward_problems(Arguments(overrides=tuple(overrides.split())).compose("cpu"))
    assert line.startswith(message)


@pytest.mark.parametrize(
    "overrides",
    [
        "",
        AGENT_LOOP + "reward.reward_manager.name=dapo +reward.reward_kwargs.max_resp_len=64",
        "reward.custom_reward_function.path=mine.py +reward.custom_reward_function.reward_kwargs.anything=1",
        "+reward.custom_reward_function.reward_kwargs.thinking=required",
    ],
)
def test_what_has_an_effect_is_no_problem(overrides):
    assert list(reward_problems(Arguments(overrides=tuple(overrides.split())).compose("cpu"))) == []
