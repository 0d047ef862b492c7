"""After a resume the optimizer has the moments and the count of the checkpoint, and the settings of the command."""

import pytest
import torch
import verl  # noqa: F401  loads the plugin

from verl_relift.actor.hyperparameters import kept

SETTINGS = {
    "init_lr": 0.0,
    "max_lr": 1e-3,
    "min_lr": 1e-5,
    "lr_warmup_steps": 2,
    "lr_decay_steps": 20,
    "lr_decay_style": "cosine",
    "start_wd": 0.1,
    "end_wd": 0.1,
    "wd_incr_steps": 20,
    "wd_incr_style": "constant",
}


def made(betas=(0.9, 0.99), **changed):
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    settings = SETTINGS | changed
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], betas=betas)
    for group in optimizer.param_groups:
        # As Megatron's groups have them, where they go before the schedule's.
        group.update(max_lr=settings["max_lr"], min_lr=settings["min_lr"], wd_mult=1.0)
    scheduler = OptimizerParamScheduler(
        optimizer, **settings, use_checkpoint_opt_param_scheduler=True, override_opt_param_scheduler=False
    )
    return optimizer, scheduler


def train(optimizer, scheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.full((3,), 0.5)
        optimizer.step()
        scheduler.step(1)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def resumed(saved, **changed):
    optimizer, scheduler = made(**changed)
    with kept(optimizer, scheduler):
        optimizer.load_state_dict(saved[0].state_dict())
        scheduler.load_state_dict(saved[1].state_dict())
    return optimizer, scheduler


@pytest.fixture
def saved():
    pair = made()
    train(*pair, 7)
    return pair


def test_megatron_still_takes_the_settings_from_the_checkpoint(saved):
    optimizer, scheduler = made(max_lr=5e-4)
    optimizer.load_state_dict(saved[0].state_dict())
    scheduler.load_state_dict(saved[1].state_dict())
    assert optimizer.param_groups[0]["lr"] == saved[0].param_groups[0]["lr"]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"max_lr": 5e-4},
        {"max_lr": 5e-3, "min_lr": 1e-4},
        {"lr_decay_steps": 40, "wd_incr_steps": 40},
        {"lr_decay_style": "linear"},
        {"lr_decay_style": "constant"},
        {"lr_warmup_steps": 10},
        {"lr_decay_steps": 5, "wd_incr_steps": 5},
        {"start_wd": 0.0, "end_wd": 0.0},
    ],
)
def test_the_schedule_goes_on_as_one_with_the_new_settings(saved, changed):
    expected = train(*made(**changed), 12)
    optimizer, scheduler = resumed(saved, **changed)
    assert optimizer.param_groups[0]["lr"] == expected[6]
    assert train(optimizer, scheduler, 5) == expected[7:]
    assert optimizer.param_groups[0]["weight_decay"] == (SETTINGS | changed)["start_wd"]


def test_moments_and_counts_are_the_checkpoints(saved):
    optimizer, scheduler = resumed(saved, max_lr=5e-4, betas=(0.5, 0.6))
    [before], [after] = saved[0].state.values(), optimizer.state.values()
    assert all(torch.equal(before[name], after[name]) for name in ("exp_avg", "exp_avg_sq", "step"))
    assert scheduler.num_steps == 7
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)
