"""Reward functions by the path and name in the configuration."""

import asyncio
import re

import pytest
from omegaconf import OmegaConf

from verl_relift.rewards.function import Answer
from verl_relift.rollout.reward import load_reward_function, reward_function_problems

SOURCE = """
def function(data_source, solution_str, ground_truth, extra_info, weight=1.0):
    return {"score": weight * (solution_str == ground_truth), "acc": solution_str == ground_truth}


async def coroutine(data_source, solution_str, ground_truth, extra_info, weight=1.0):
    return weight * (solution_str == ground_truth)


class Reward:
    made = 0

    def __init__(self, weight=1.0):
        Reward.made += 1
        self.weight = weight

    def __call__(self, data_source, solution_str, ground_truth, extra_info):
        return {"score": self.weight * (solution_str == ground_truth), "acc": 1.0, "made": Reward.made}
"""


def load(tmp_path, name, correct_from=None, **kwargs):
    (tmp_path / "reward.py").write_text(SOURCE)
    function = {"path": str(tmp_path / "reward.py"), "name": name, "reward_kwargs": kwargs}
    config = {"reward": {"custom_reward_function": function}, "relift": {"reward": {"correct_from": correct_from}}}
    return load_reward_function(OmegaConf.create(config))


def score(function, text="a"):
    return asyncio.run(function.score(Answer(text, "a")))


@pytest.mark.parametrize("name", ["function", "coroutine", "Reward"])
def test_a_function_a_coroutine_function_and_a_class_take_their_kwargs(tmp_path, name):
    function = load(tmp_path, name, correct_from=2.0, weight=2.0)
    assert score(function).reward == 2.0 and score(function).right
    assert score(function, "b").reward == 0.0


def test_a_class_is_made_once(tmp_path):
    function = load(tmp_path, "Reward")
    assert [score(function).info["made"] for _ in range(3)] == [1, 1, 1]


def test_without_a_file_it_is_verls_function():
    config = {"reward": {"custom_reward_function": {"path": None, "name": "compute_score"}}}
    config["relift"] = {"reward": {"correct_from": None}}
    function = load_reward_function(OmegaConf.create(config))
    answer = Answer("#### 4", "4", "openai/gsm8k")
    assert asyncio.run(function.score(answer)).right


# ---- before a run ----------------------------------------------------------------------------------------------------


def problems(tmp_path, name, source=SOURCE, path="reward.py", batched=True, **kwargs):
    (tmp_path / "reward.py").write_text(source)
    function = {"path": str(tmp_path / path), "name": name, "reward_kwargs": kwargs}
    relift = {"reward": {"correct_from": None}, "rollout": {"batched": batched}}
    return list(
        reward_function_problems(OmegaConf.create({"reward": {"custom_reward_function": function}, "relift": relift}))
    )


@pytest.mark.parametrize("name", ["function", "coroutine", "Reward"])
def test_a_function_that_can_be_called(tmp_path, name):
    assert problems(tmp_path, name) == problems(tmp_path, name, weight=2.0) == []


def test_a_function_may_ask_whether_the_prompt_opens_a_thought(tmp_path):
    source = "def asks(data_source, solution_str, ground_truth, extra_info, prompt_opens_thought): return 1.0"
    assert problems(tmp_path, "asks", source=source) == []
    (line,) = problems(tmp_path, "asks", source=source, batched=False)
    assert "missing a required argument: 'prompt_opens_thought'" in line


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "function",
            {"path": "missing.py"},
            r"^reward\.custom_reward_function\.path=.*missing\.py: no such file; correct",
        ),
        ("functoin", {}, r"reward\.py has function, coroutine, Reward and no functoin; set reward.*\.name=function$"),
        ("f", {"source": "one = 1"}, r"f cannot be loaded from .*reward\.py \(AttributeError"),
        ("f", {"source": "import json\njson.f"}, r"f cannot be loaded from .*reward\.py \(AttributeError"),
        ("function", {"source": "def function(:"}, r"cannot be loaded from .* \(SyntaxError"),
        ("function", {"source": "import nowhere_at_all"}, r"\(ModuleNotFoundError: No module named 'nowhere_at_all'\)"),
        ("function", {"source": "function = 1"}, r"name=function: not a function in"),
        (
            "function",
            {"source": "def function(text): pass"},
            r"cannot be called: .*it takes \(text\), and is called with \(data_source, solution_str, ",
        ),
        ("function", {"weigth": 1.0}, r"function cannot be called: .*'weigth'"),
        ("coroutine", {"weigth": 1.0}, r"coroutine cannot be called: .*'weigth'"),
        ("Reward", {"weigth": 1.0}, r"reward_kwargs: Reward cannot be called: .*'weigth'"),
        ("Reward", {"batched": False}, r"a class needs relift\.rollout\.batched=true"),
    ],
)
def test_what_cannot_be_called_is_one_line(tmp_path, name, change, message):
    (line,) = problems(tmp_path, name, **change)
    assert re.search(message, line) and "\n" not in line
