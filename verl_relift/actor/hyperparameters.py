"""What an optimizer is told, against what it has learned: a checkpoint is to bring back the second only."""

from collections.abc import Iterator
from contextlib import contextmanager

# Of a group of parameters, what is no setting. Transformer Engine counts steps per group.
_STATE = ("params", "step")


@contextmanager
def kept(optimizer, scheduler) -> Iterator[None]:
    """Keep the settings of an optimizer and of its learning-rate schedule while a checkpoint is loaded into them.

    Megatron takes them from the checkpoint: learning rates, the schedule's form and length, weight decay, betas. What
    the user has changed since would have no effect. The count of steps, which says where in the schedule training
    is, and AdamW's moments come from the checkpoint.

    Args:
        optimizer: Megatron's, chained or not.
        scheduler: Megatron's `OptimizerParamScheduler` of that optimizer.
    """
    settings = [{k: v for k, v in group.items() if k not in _STATE} for group in optimizer.param_groups]
    scheduler.use_checkpoint_opt_param_scheduler, scheduler.override_opt_param_scheduler = False, True
    yield
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    scheduler.step(0)  # the learning rate of the step that training is at
