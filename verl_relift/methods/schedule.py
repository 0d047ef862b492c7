"""When a supervised update is due, of what size, and at which learning rate."""

import math

from ..settings import LRSchedule, Schedule, ScheduleSettings, SFTSettings


def updates_due(step: int, waiting: int, schedule: ScheduleSettings, sft: SFTSettings, multiple: int = 1) -> list[int]:
    """Sizes of the supervised updates to make in this step.

    ``adaptive`` makes one per full batch of M that waits, up to the limit per step. ``every_k`` and ``always`` make
    one in their steps with what waits, at most M, rounded down to ``multiple``; none if nothing is left.

    Args:
        step: the training step, from 1.
        waiting: demonstrations in the buffer.
        multiple: what the size must be divisible by: the data-parallel size.
    """
    match schedule.kind:
        case Schedule.NEVER:
            return []
        case Schedule.ADAPTIVE:
            return [sft.batch_size] * min(waiting // sft.batch_size, schedule.max_updates_per_step)
        case Schedule.EVERY_K if step % schedule.every:
            return []
        case _:
            size = min(waiting, sft.batch_size)
            size -= size % multiple
            return [size] if size else []


def sft_learning_rate(updates_made: int, settings: SFTSettings) -> float:
    """Learning rate of the next supervised update.

    It has a schedule of its own, counted in supervised updates: linear warm-up, then constant, or down to
    ``min_lr_ratio`` of the peak at update ``lr_decay_updates``. The RL schedule counts RL updates and is not touched.

    Args:
        updates_made: supervised updates before this one.
    """
    warmup = settings.lr_warmup_updates
    if updates_made < warmup:
        return settings.lr * (updates_made + 1) / warmup
    if settings.lr_schedule is LRSchedule.CONSTANT:
        return settings.lr
    done = min(1.0, (updates_made - warmup) / (settings.lr_decay_updates - warmup))
    left = 1.0 - done if settings.lr_schedule is LRSchedule.LINEAR else 0.5 * (1.0 + math.cos(math.pi * done))
    return settings.lr * (settings.min_lr_ratio + (1.0 - settings.min_lr_ratio) * left)
