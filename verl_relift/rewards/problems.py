"""What is wrong with the settings of the reward function, before Ray starts."""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from . import verl_hook


def has_own_function(config: DictConfig) -> bool:
    """Return whether the reward function is another than this package's, which alone asks for mathematics."""
    return config.reward.custom_reward_function.path != verl_hook.PATH


def reward_problems(config: DictConfig) -> Iterator[str]:
    """Yield what is wrong with `reward_kwargs` of this package's reward function."""
    if has_own_function(config):
        return
    kwargs = config.reward.custom_reward_function.get("reward_kwargs") or OmegaConf.create({})
    problem = verl_hook.setting_problem(OmegaConf.to_container(kwargs, resolve=True))
    if problem is not None:
        yield f"reward.custom_reward_function.reward_kwargs: {problem}"
