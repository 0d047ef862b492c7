"""The reward function that the configuration names, as rollouts, demonstrations and teachers use it."""

from omegaconf import DictConfig, OmegaConf
from verl.utils.import_utils import load_extern_object
from verl.utils.reward_score import default_compute_score

from ..rewards.function import RewardFunction


def load_reward_function(config: DictConfig) -> RewardFunction:
    """Return `reward.custom_reward_function`; verl's own function where it names no file.

    A class is made once, with `reward_kwargs`, and its object is called. Any other function gets `reward_kwargs` with
    every call.
    """
    named = config.reward.custom_reward_function
    kwargs = OmegaConf.to_container(named.get("reward_kwargs") or OmegaConf.create({}), resolve=True)
    function = load_extern_object(named.path, named.name) if named.path else default_compute_score
    if isinstance(function, type):
        function, kwargs = function(**kwargs), {}
    return RewardFunction(function, config.relift.reward.correct_from, **kwargs)
