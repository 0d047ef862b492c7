"""The reward function that the configuration names, as rollouts, demonstrations and teachers use it."""

import inspect
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.utils.import_utils import load_extern_object
from verl.utils.reward_score import default_compute_score

from ..rewards.function import THOUGHT, RewardFunction

_ARGUMENTS = ("data_source", "solution_str", "ground_truth", "extra_info")


def load_reward_function(config: DictConfig) -> RewardFunction:
    """Return `reward.custom_reward_function`; verl's own function where it names no file.

    A class is made once, with `reward_kwargs`, and its object is called. Any other function gets `reward_kwargs` with
    every call.
    """
    function, kwargs = _named(config)
    if isinstance(function, type):
        function, kwargs = function(**kwargs), {}
    return RewardFunction(function, config.relift.reward.correct_from, **kwargs)


def reward_function_problems(config: DictConfig) -> Iterator[str]:
    """Yield why the reward function cannot be loaded, made or called with its settings. Its module is imported."""
    key, named = "reward.custom_reward_function", config.reward.custom_reward_function
    try:
        function, kwargs = _named(config)
    except Exception as error:  # whatever the module raises
        cause = error.__cause__ or error
        why = ": ".join([type(cause).__name__, *str(cause).splitlines()[:1]])
        yield f"{key}: {named.name} cannot be loaded from {named.path} ({why}); correct it"
        return
    if not callable(function):
        yield f"{key}.name={named.name}: not a function in {named.path}; name one"
        return
    if isinstance(function, type):
        if not config.relift.rollout.batched:
            yield f"{key}.name={named.name}: a class needs relift.rollout.batched=true; name a function instead"
            return
        yield from _refused(function, kwargs, f"{key}.reward_kwargs: {named.name}")
        function, kwargs = function.__call__, {"self": None}
    arguments = dict.fromkeys(_ARGUMENTS) | kwargs
    if config.relift.rollout.batched and THOUGHT in inspect.signature(function).parameters:
        arguments[THOUGHT] = False
    yield from _refused(function, arguments, f"{key}: {named.name}")


def _named(config: DictConfig) -> tuple[Any, dict[str, Any]]:
    named = config.reward.custom_reward_function
    kwargs = OmegaConf.to_container(named.get("reward_kwargs") or OmegaConf.create({}), resolve=True)
    return load_extern_object(named.path, named.name) if named.path else default_compute_score, kwargs


def _refused(function: Any, kwargs: dict[str, Any], name: str) -> Iterator[str]:
    """Yield what a signature has against keyword arguments."""
    try:
        inspect.signature(function).bind(**kwargs)
    except TypeError as error:
        yield f"{name} cannot be called: {error}; it takes {inspect.signature(function)}"
