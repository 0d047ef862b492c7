"""Settings of rewards that cannot work or would be ignored, found before Ray starts."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from . import verl_hook

# Where verl's configuration had its rewards before it had the group `reward`.
_FORMER = ("custom_reward_function", "reward_model", "sandbox_fusion")


def has_own_function(config: DictConfig) -> bool:
    """Return whether the reward function is another than this package's, which alone asks for mathematics."""
    return config.reward.custom_reward_function.path != verl_hook.PATH


def reward_problems(config: DictConfig) -> Iterator[str]:
    """Yield a line for each setting of `reward` and `data.reward_fn_key` that has no effect or a wrong value."""
    for group in _FORMER:
        for key, value in _leaves(config.get(group), group):
            yield f"{key}={value} has no effect: verl 0.9.1 reads rewards from the group reward; set its key instead"
    key = config.data.get("reward_fn_key", "data_source")
    if key != "data_source":
        yield (
            f"data.reward_fn_key={key} has no effect: verl 0.9.1 gives reward functions the column data_source; rename "
            "the column, and leave the key out"
        )
    if config.relift.rollout.batched:
        yield from _needs_agent_loop(config.reward)
    if has_own_function(config):
        return
    if config.relift.reward.correct_from is not None:
        yield (
            f"relift.reward.correct_from={config.relift.reward.correct_from} has no effect: this package's reward "
            "function says itself what is right (acc); leave the key out"
        )
    kwargs = config.reward.custom_reward_function.get("reward_kwargs") or OmegaConf.create({})
    problem = verl_hook.setting_problem(OmegaConf.to_container(kwargs, resolve=True))
    if problem is not None:
        yield f"reward.custom_reward_function.reward_kwargs: {problem}"


def _needs_agent_loop(reward: DictConfig) -> Iterator[str]:
    """Yield what only verl's reward workers do."""
    manager, sandbox = reward.reward_manager, reward.get("sandbox_fusion") or {}
    for key, value, unset in (
        ("reward.reward_manager.source", manager.source, "register"),
        ("reward.reward_manager.name", manager.name, "naive"),
        ("reward.reward_manager.module.path", manager.module.path, None),
        ("reward.reward_kwargs", reward.get("reward_kwargs"), None),
        ("reward.sandbox_fusion.url", sandbox.get("url"), None),
    ):
        if value != unset:
            yield (
                f"{key}={value} has no effect on rollouts in batches: set relift.rollout.batched=false and "
                "reward.num_workers=8, or leave the key out"
            )


def _leaves(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the key and value of everything in a group that is set."""
    if isinstance(group, DictConfig):
        for name, value in group.items():
            yield from _leaves(value, f"{path}.{name}")
    elif group is not None:
        yield path, group
