"""Where demonstrations meet the RL update: as rows of it, in its last mini-batch, or in a step of their own."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from ..demonstrations.buffer import Demonstration
from ..settings import SettingsError
from ..types import GradedRollout, Group, Role
from .schedule import LearningRate
from .weight import TokenWeight


def demonstration_row(group: Group, demonstration: Demonstration, counts_in_mean: bool = True) -> GradedRollout:
    """Return a verified demonstration as a row of its question's group.

    It was verified, so it is not graded again: its reward is that of a right answer, 1.

    Args:
        group: as graded; the row's name comes after those of its rollouts.
        counts_in_mean: whether the group's rollouts are compared with it.
    """
    last = max((int(rollout.key.rsplit("_", 2)[1]) for rollout in group.rollouts), default=-1)
    return GradedRollout(
        key=f"{group.question.draw}_{last + 1}_0",
        reward=1.0,
        accuracy=1.0,
        info={},
        tokens=len(demonstration.response_ids),
        token_ids=np.asarray(demonstration.response_ids, dtype=np.int64),
        role=Role.DEMONSTRATION,
        prompt_ids=tuple(demonstration.prompt_ids),
        counts_in_mean=counts_in_mean,
    )


@dataclass(frozen=True)
class SplicedRows:
    """Demonstrations that the RL update carries: one gradient and one optimizer step for both losses.

    The supervised loss is a mean over the demonstration tokens of the whole batch, minus `entropy_coeff` times their
    mean entropy; `weight` multiplies it.
    """

    demonstrations: Sequence[Demonstration]
    weight: float = 1.0
    entropy_coeff: float = 0.0


@dataclass(frozen=True)
class SupervisedUpdate:
    """An optimizer step of its own, after the RL update, on the same loss as `SplicedRows`."""

    demonstrations: Sequence[Demonstration]
    lr: float
    clip_grad: float = 1.0
    entropy_coeff: float = 0.0
    epochs: int = 1  # optimizer steps on the same batch
    separate_moments: bool = False  # AdamW moments of its own; otherwise the RL update's
    max_token_len_per_gpu: int | None = None  # tokens per micro-batch; None: as the RL update


class Moments(StrEnum):
    """Whose AdamW moments the supervised update uses."""

    SHARED = "shared"  # the RL update's
    SEPARATE = "separate"  # its own; twice the optimizer's memory, less one copy of the weights


@dataclass(frozen=True)
class OwnStepSettings(LearningRate):
    """`method.sft` of methods whose supervised update is an optimizer step of its own.

    `batch_size` is the paper's M: demonstrations per update.
    """

    batch_size: int = 64
    optimizer: Moments = Moments.SHARED
    entropy_coeff: float = 1e-4
    token_weight: TokenWeight = TokenWeight.ONE
    clip_grad: float = 1.0
    epochs: int = 1
    max_token_len_per_gpu: int | None = None

    def __post_init__(self):
        super().__post_init__()
        _at_least_one(self, "batch_size", "epochs")
        _positive(self, "clip_grad")
        _finite(self, "entropy_coeff")

    def update(self, demonstrations: Sequence[Demonstration], updates_made: int) -> SupervisedUpdate:
        """Return the next update on `demonstrations`, the first being update 0."""
        return SupervisedUpdate(
            demonstrations=demonstrations,
            lr=self.learning_rate(updates_made),
            clip_grad=self.clip_grad,
            entropy_coeff=self.entropy_coeff,
            epochs=self.epochs,
            separate_moments=self.optimizer is Moments.SEPARATE,
            max_token_len_per_gpu=self.max_token_len_per_gpu,
        )


@dataclass(frozen=True)
class SpliceSettings:
    """`method.sft` of methods whose demonstrations join the RL update.

    The update has the RL update's learning rate and clipping. `batch_size` is the largest number of demonstrations
    in one update.
    """

    batch_size: int = 64
    weight: float = 1.0
    entropy_coeff: float = 1e-4
    token_weight: TokenWeight = TokenWeight.ONE

    def __post_init__(self):
        _at_least_one(self, "batch_size")
        _positive(self, "weight")
        _finite(self, "entropy_coeff")

    def rows(self, demonstrations: Sequence[Demonstration]) -> SplicedRows:
        """Return `demonstrations` as the RL update takes them."""
        return SplicedRows(demonstrations, self.weight, self.entropy_coeff)


def own_step_problems(settings: OwnStepSettings, config: Any) -> Iterator[str]:
    """Find what a supervised update with moments of its own cannot share an optimizer with."""
    if settings.optimizer is not Moments.SEPARATE:
        return
    optim = config.actor_rollout_ref.actor.optim
    own = optim.override_optimizer_config
    if optim.get("use_precision_aware_optimizer") or own.get("use_precision_aware_optimizer"):
        yield (
            "method.sft.optimizer=separate exchanges AdamW's fp32 moments, which use_precision_aware_optimizer stores "
            "in another form; change one of the two"
        )
    if own.get("optimizer_cpu_offload"):
        yield (
            "method.sft.optimizer=separate does not support Megatron's optimizer_cpu_offload; use "
            "actor_rollout_ref.actor.megatron.optimizer_offload=true instead"
        )


def group_row_problems(config: Any) -> Iterator[str]:
    """Find what cannot do with rows that the policy did not write."""
    algorithm = config.algorithm
    if algorithm.adv_estimator != "grpo":
        yield (
            f"algorithm.adv_estimator={algorithm.adv_estimator}: a demonstration in a group is compared with its "
            "rollouts, which grpo does; set it to grpo"
        )
    if algorithm.use_kl_in_reward:
        yield (
            "algorithm.use_kl_in_reward=true would take a KL penalty from rollouts and none from demonstrations, which "
            "are compared with them; use actor_rollout_ref.actor.use_kl_loss=true"
        )
    if algorithm.filter_groups.enable:
        yield (
            "algorithm.filter_groups.enable=true removes questions before their demonstrations join; set it to false"
        )
    if (algorithm.get("rollout_correction") or {}).get("bypass_mode"):
        yield (
            "algorithm.rollout_correction.bypass_mode=true takes old log-probs from sampling, but nobody has sampled "
            "demonstrations; set it to false"
        )


def one_update_problems(config: Any) -> Iterator[str]:
    """Find more than one RL update in a step: coefficients of both losses hold where both are."""
    actor, batch = config.actor_rollout_ref.actor, config.data.train_batch_size
    if actor.ppo_mini_batch_size != batch:
        yield (
            f"actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size}: demonstrations join a "
            f"step's last RL update, so this method makes one update a step; set it to data.train_batch_size={batch}"
        )
    if actor.ppo_epochs != 1:
        yield f"actor_rollout_ref.actor.ppo_epochs={actor.ppo_epochs}: this method makes one update a step; set it to 1"


def splice_problems(config: Any) -> Iterator[str]:
    """Find what would reduce gradients before both losses are in."""
    if config.actor_rollout_ref.actor.megatron.override_ddp_config.get("overlap_grad_reduce"):
        yield (
            "actor_rollout_ref.actor.megatron.override_ddp_config.overlap_grad_reduce=true would reduce gradients "
            "before the demonstrations' loss is in; set it to false, or use a method with an own supervised update"
        )


def _at_least_one(settings: Any, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise SettingsError(f"method.sft.{name}={getattr(settings, name)} must be at least 1")


def _positive(settings: Any, *names: str) -> None:
    for name in names:
        if not 0.0 < getattr(settings, name) < math.inf:
            raise SettingsError(f"method.sft.{name}={getattr(settings, name)} must be positive and finite")


def _finite(settings: Any, *names: str) -> None:
    for name in names:
        if not math.isfinite(getattr(settings, name)):
            raise SettingsError(f"method.sft.{name}={getattr(settings, name)} must be finite")
