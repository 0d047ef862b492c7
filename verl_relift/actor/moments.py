"""A second AdamW over the same weights: moments and step count of its own, one master copy for both.

A second optimizer object would keep fp32 master weights of its own and write them over what the first one made of
the model. So there is one optimizer, whose state is exchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# What AdamW keeps per parameter besides a master copy (torch's, Apex's and Transformer Engine's use these names).
_STATE = ("exp_avg", "exp_avg_sq", "step")


class Moments:
    """AdamW state that waits while the optimizer works with its own.

    It takes 8 bytes per parameter in fp32, divided over data-parallel ranks like the optimizer's own state. With
    `offload` it waits in host memory.
    """

    def __init__(self, optimizer, offload: bool):
        """
        Args:
            optimizer: Megatron's, chained or not.
            offload: keep the waiting state in host memory, as the engine does with the optimizer's.
        """
        self._optimizers = [part.optimizer for part in getattr(optimizer, "chained_optimizers", [optimizer])]
        self._waiting_device = torch.device("cpu") if offload else None
        self._waiting: dict[torch.Tensor, dict] = {}
        # By place: loading a checkpoint gives an optimizer new groups.
        self._group_steps: dict[tuple[int, int], float] = {}
        self.used = False  # whether an update was made with it

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the optimizer work with this state until the block ends."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()
            self.used = True

    def _exchange(self) -> None:
        for i, optimizer in enumerate(self._optimizers):
            for j, group in enumerate(optimizer.param_groups):
                if "step" in group:  # Transformer Engine counts per group
                    waiting = self._group_steps.get((i, j), 0)
                    self._group_steps[i, j], group["step"] = group["step"], waiting
                for parameter in group["params"]:
                    self._exchange_one(optimizer, parameter)

    def _exchange_one(self, optimizer, parameter: torch.Tensor) -> None:
        state = optimizer.state[parameter]
        leaving = {name: state.pop(name) for name in _STATE if name in state}
        coming = self._waiting.pop(parameter, None)
        if coming is None:
            # Zeros rather than nothing: an optimizer takes a state with some keys for a complete one.
            coming = {name: torch.zeros_like(value) for name, value in leaving.items()}
        state.update({name: value.to(parameter.device) if value.ndim else value for name, value in coming.items()})
        if self._waiting_device is not None:
            leaving = {name: value.to(self._waiting_device) for name, value in leaving.items()}
        if leaving:
            self._waiting[parameter] = leaving
