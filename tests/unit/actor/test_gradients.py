"""Shares of the gradient by part, with an engine of one weight in place of Megatron's."""

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from verl_relift.actor.gradients import gradient_shares


class Engine:
    """What `gradient_shares` uses of verl's engine, on one weight."""

    def __init__(self):
        self.weight = torch.tensor([3.0, 4.0], requires_grad=True)
        self.optimizer = SimpleNamespace(
            prepare_grads=lambda: False, get_grad_norm=lambda: self.weight.grad.norm().item()
        )

    def optimizer_zero_grad(self):
        self.weight.grad = torch.zeros(2)

    def forward_backward_batch(self, data, loss):
        loss(self.weight).backward()
        return {"metrics": {}}

    def train_batch(self, data, loss):
        self.optimizer_zero_grad()
        output = self.forward_backward_batch(data, loss)
        output["metrics"]["grad_norm"] = self.optimizer.get_grad_norm()
        return output

    def is_mp_src_rank_with_outputs(self):
        return True


def mini_batch(last: bool) -> TensorDict:
    return tu.get_tensordict({"input_ids": torch.zeros(1, 1)}, {"update_lr_scheduler": last})


def test_the_last_mini_batch_measures_each_part_and_trains_on_the_whole():
    engine = Engine()
    parts = {"own": (lambda w: w[0], None), "demonstration": (lambda w: 2 * w[1], mini_batch(True))}
    with gradient_shares(engine, parts):
        first = engine.train_batch(mini_batch(False), lambda w: w.sum())["metrics"]
        last = engine.train_batch(mini_batch(True), lambda w: w[0] + 2 * w[1])["metrics"]
    assert set(first) == {"grad_norm"}
    whole = 5**0.5
    assert last["own_gradient_share"].aggregate() == pytest.approx(1 / whole)
    assert last["demonstration_gradient_share"].aggregate() == pytest.approx(2 / whole)
    assert engine.weight.grad.tolist() == [1.0, 2.0]  # the update's own gradient is the one that is left


def test_what_else_has_taken_the_engines_place_is_there_again():
    engine = Engine()
    own = engine.train_batch
    engine.train_batch = lambda data, loss: own(data, loss)
    spliced = engine.train_batch
    with gradient_shares(engine, {"own": (lambda w: w[0], None)}):
        assert engine.train_batch is not spliced
    assert engine.train_batch is spliced
    with gradient_shares(engine, {}):
        assert engine.train_batch is spliced
