"""The reward function that the configuration names, as rollouts, demonstrations and teachers use it."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.utils.import_utils import load_module
from verl.utils.reward_score import default_compute_score

from ..rewards import own, trial
from ..rewards.function import Answer, RewardFunction
from ..rewards.problems import has_own_function

_KEY = "reward.custom_reward_function"
_KEYS = own.Keys(_KEY, f"{_KEY}.path=", f"{_KEY}.name=", f"{_KEY}.reward_kwargs")


def load_reward_function(config: DictConfig) -> RewardFunction:
    """Return `reward.custom_reward_function`; verl's own function where it names no file."""
    function, kwargs = _named(config)
    return own.make(function, config.relift.reward.correct_from, kwargs)


def reward_function_problems(config: DictConfig) -> Iterator[str]:
    """Yield why the reward function cannot be loaded, made or called with its settings. Its module is imported."""
    named = config.reward.custom_reward_function
    try:
        function, kwargs = _named(config)
    except (Exception, SystemExit) as error:  # whatever the module raises
        yield own.loading_problem(_KEYS, named.path, named.name, error)
        return
    yield from own.call_problems(_KEYS, named.path, named.name, function, kwargs, config.relift.rollout.batched)


def try_reward_function(config: DictConfig, answer: Answer) -> tuple[str | None, bool]:
    """Call a function of the user's once; see `rewards/trial.py`.

    A class is not made, which may take what a run takes. verl's own function is not called, and none that verl calls,
    because verl gives it more arguments and takes rewards that do not say what is right.
    """
    function, kwargs = _named(config)
    calls = has_own_function(config) and config.relift.rollout.batched
    if not calls or function is default_compute_score or isinstance(function, type):
        return None, False
    return trial.try_one(own.make(function, config.relift.reward.correct_from, kwargs), answer)


def _named(config: DictConfig) -> tuple[Any, dict[str, Any]]:
    named = config.reward.custom_reward_function
    kwargs = OmegaConf.to_container(named.get("reward_kwargs") or OmegaConf.create({}), resolve=True)
    return own.of_module(load_module(named.path), named.name) if named.path else default_compute_score, kwargs
