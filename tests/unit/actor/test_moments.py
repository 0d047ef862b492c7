"""AdamW state that waits: separate moments over a resume, for optimizers that count steps per group."""

import copy

import torch

from verl_relift.actor.moments import Moments


class CountsPerGroup(torch.optim.Optimizer):
    """Keeps its state in the form of Transformer Engine's FusedAdam: `step` per group, moments per parameter."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 1e-3})

    def step(self):
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for parameter in group["params"]:
                state = self.state[parameter]
                for name in ("exp_avg", "exp_avg_sq"):
                    state[name] = state.get(name, torch.zeros_like(parameter)) + 1


class Chained:
    """Megatron's wrapper around several optimizers, as far as `Moments` looks at it."""

    def __init__(self, *optimizers):
        self.chained_optimizers = [type("Part", (), {"optimizer": optimizer})() for optimizer in optimizers]


def make() -> tuple[list[CountsPerGroup], Moments]:
    groups = [{"params": [torch.nn.Parameter(torch.ones(3))]}, {"params": [torch.nn.Parameter(torch.ones(2))]}]
    optimizers = [CountsPerGroup(groups), CountsPerGroup([torch.nn.Parameter(torch.ones(1))])]
    return optimizers, Moments(Chained(*optimizers), offload=False)


def steps(optimizers) -> list[int]:
    return [group.get("step", 0) for optimizer in optimizers for group in optimizer.param_groups]


def moments(optimizers) -> list[float]:
    return [
        optimizer.state[parameter]["exp_avg"][0].item()
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def test_each_kind_of_update_has_its_own_count_and_moments_after_a_resume():
    optimizers, separate = make()
    for _ in range(5):
        [optimizer.step() for optimizer in optimizers]
    for _ in range(3):
        with separate.lent():
            [optimizer.step() for optimizer in optimizers]
    saved = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    with separate.lent():
        saved_separate = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]

    # A new process: the worker loads the separate moments first, then the engine loads the optimizer.
    optimizers, separate = make()
    with separate.lent():
        for optimizer, state in zip(optimizers, saved_separate, strict=True):
            optimizer.load_state_dict(state)
    for optimizer, state in zip(optimizers, saved, strict=True):
        optimizer.load_state_dict(state)
    assert steps(optimizers) == [5, 5, 5] and moments(optimizers) == [5.0, 5.0, 5.0]
    with separate.lent():
        assert steps(optimizers) == [3, 3, 3] and moments(optimizers) == [3.0, 3.0, 3.0]
    assert steps(optimizers) == [5, 5, 5]
