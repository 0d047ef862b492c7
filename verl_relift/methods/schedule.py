"""When a supervised update is due, of what size, and at which learning rate."""

import math
from dataclasses import dataclass
from enum import StrEnum

from ..settings import SettingsError


class Schedule(StrEnum):
    """In which steps a supervised update is made."""

    ADAPTIVE = "adaptive"  # whenever M demonstrations wait
    EVERY_K = "every_k"  # in every method.schedule.every-th step, with up to M of those that wait
    ALWAYS = "always"  # in every step, with up to M of those that wait
    NEVER = "never"  # demonstrations are collected and counted, nothing is trained on them


@dataclass(frozen=True)
class ScheduleSettings:
    """In which steps a supervised update is made."""

    kind: Schedule = Schedule.ADAPTIVE
    every: int = 8
    max_updates_per_step: int = 1

    def __post_init__(self):
        for name in ("every", "max_updates_per_step"):
            if getattr(self, name) < 1:
                raise SettingsError(f"method.schedule.{name}={getattr(self, name)} must be at least 1")


class LRSchedule(StrEnum):
    """Course of the supervised learning rate after its warm-up, counted in supervised updates."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


@dataclass(frozen=True)
class LearningRate:
    """Learning rate of supervised updates, with a schedule of its own: the RL schedule counts RL updates."""

    lr: float = 1e-6
    lr_warmup_updates: int = 0
    lr_schedule: LRSchedule = LRSchedule.CONSTANT
    lr_decay_updates: int | None = None
    min_lr_ratio: float = 0.0

    def __post_init__(self):
        if not 0.0 < self.lr < math.inf:
            raise SettingsError(
                f"method.sft.lr={self.lr} must be positive and finite; to train without demonstrations use method=grpo"
            )
        if self.lr_warmup_updates < 0:
            raise SettingsError(f"method.sft.lr_warmup_updates={self.lr_warmup_updates} must not be negative")
        if not 0.0 <= self.min_lr_ratio <= 1.0:
            raise SettingsError(f"method.sft.min_lr_ratio={self.min_lr_ratio} must be in [0, 1]")
        decay = self.lr_decay_updates
        if self.lr_schedule is not LRSchedule.CONSTANT and (decay is None or decay <= self.lr_warmup_updates):
            raise SettingsError(
                f"method.sft.lr_decay_updates={decay}: lr_schedule={self.lr_schedule} needs the supervised update at "
                "which the learning rate is at its lowest, after the warm-up"
            )

    def learning_rate(self, updates_made: int) -> float:
        """Return the learning rate of the next supervised update.

        It rises linearly over the warm-up, then stays, or falls to `min_lr_ratio` of the peak at update
        `lr_decay_updates`.

        Args:
            updates_made: supervised updates before this one.
        """
        warmup = self.lr_warmup_updates
        if updates_made < warmup:
            return self.lr * (updates_made + 1) / warmup
        if self.lr_schedule is LRSchedule.CONSTANT:
            return self.lr
        done = min(1.0, (updates_made - warmup) / (self.lr_decay_updates - warmup))
        left = 1.0 - done if self.lr_schedule is LRSchedule.LINEAR else 0.5 * (1.0 + math.cos(math.pi * done))
        return self.lr * (self.min_lr_ratio + (1.0 - self.min_lr_ratio) * left)


@dataclass(frozen=True)
class RiseAndFall:
    """A coefficient that rises linearly from 0 to its peak, falls as half a cosine wave, and stays."""

    peak: float
    valley: float
    warmup_steps: int = 0
    decay_steps: int = 0

    def at(self, step: int) -> float:
        """Return the coefficient of a training step, counted from 1."""
        done = step - 1
        if done < self.warmup_steps:
            return self.peak * done / self.warmup_steps
        done -= self.warmup_steps
        if done >= self.decay_steps:
            return self.valley
        return self.valley + (self.peak - self.valley) * 0.5 * (1.0 + math.cos(math.pi * done / self.decay_steps))

    def require_fraction(self, key: str) -> None:
        """Check that it is always in [0, 1].

        Raises:
            SettingsError: it is not, or a number of steps is negative.
        """
        for name in ("peak", "valley"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise SettingsError(f"{key}.{name}={getattr(self, name)} must be in [0, 1]")
        for name in ("warmup_steps", "decay_steps"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{key}.{name}={getattr(self, name)} must not be negative")
        if self.peak != self.valley and not self.warmup_steps and not self.decay_steps:
            raise SettingsError(
                f"{key}.peak={self.peak} has no effect where warmup_steps and decay_steps are 0; set one of them, or "
                f"{key}.valley to the same"
            )


def updates_due(step: int, waiting: int, batch_size: int, schedule: ScheduleSettings, multiple: int = 1) -> list[int]:
    """Return the sizes of the supervised updates to make in this step.

    `adaptive` makes one per full batch of M that waits, up to the limit per step. `every_k` and `always` make
    one in their steps with those that wait, at most M, rounded down to `multiple`; none if nothing is left.

    Args:
        step: the training step, from 1.
        waiting: demonstrations in the buffer.
        batch_size: M.
        multiple: what a size must be divisible by: the data-parallel size.
    """
    match schedule.kind:
        case Schedule.NEVER:
            return []
        case Schedule.ADAPTIVE:
            return [batch_size] * min(waiting // batch_size, schedule.max_updates_per_step)
        case Schedule.EVERY_K if step % schedule.every:
            return []
        case _:
            size = min(waiting, batch_size)
            size -= size % multiple
            return [size] if size else []
