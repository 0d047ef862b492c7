"""The policy loss by role with verl's own loss in it, on two rows: a rollout and a demonstration in its group."""

from functools import partial

import pytest
import torch
from verl.utils import tensordict_utils as tu
from verl.workers.config import McoreActorConfig, McoreOptimizerConfig
from verl.workers.utils.losses import ppo_loss

from verl_relift.actor.batch import jagged
from verl_relift.actor.roles import role_loss
from verl_relift.methods.weight import Term
from verl_relift.types import Role

# Log-probs and entropies at each position of [prompt token, response tokens]: those of a response's tokens come one
# position earlier, and the last position predicts nothing.
LOG_PROBS = [torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([-0.5, -1.5, -3.0, 0.0])]
ENTROPY = [torch.tensor([2.0, 1.0, 0.0]), torch.tensor([9.0, 9.0, 9.0, 0.0])]
ENTROPY_COEFF = 0.1


def loss_of(agg: str, demonstration_tokens: int = 3, joint: bool = True) -> tuple[float, dict]:
    mask = jagged([torch.ones(2).long(), torch.zeros(3).long()])
    roles = jagged([torch.full((2,), Role.OWN).long(), torch.full((3,), Role.DEMONSTRATION).long()])
    data = tu.get_tensordict(
        {
            "prompts": jagged([torch.ones(1).long()] * 2),
            "responses": jagged([torch.ones(2).long(), torch.ones(3).long()]),
            "response_mask": mask,
            "roles": roles,
            "old_log_probs": jagged([LOG_PROBS[0][:-1], LOG_PROBS[1][:-1]]),
            "advantages": jagged([torch.full((2,), -0.5), torch.full((3,), 0.5)]),
        },
        {"batch_num_tokens": 2, "global_batch_size": 2, "dp_size": 1},
    )
    counts = (2, demonstration_tokens, 0, 0, 0)
    tu.assign_non_tensor(data, role_num_tokens=counts)
    config = McoreActorConfig(
        strategy="megatron",
        rollout_n=1,
        ppo_mini_batch_size=2,
        use_dynamic_bsz=True,
        ppo_max_token_len_per_gpu=100,
        entropy_coeff=ENTROPY_COEFF,
        loss_agg_mode=agg,
        loss_scale_factor=10,
        optim=McoreOptimizerConfig(lr=1e-3, total_training_steps=10),
    )
    term = Term(Role.DEMONSTRATION, lambda token: -token.advantage * token.log_prob.exp(), joint=joint)
    output = {"log_probs": jagged(LOG_PROBS), "entropy": jagged(ENTROPY)}
    loss, metrics = role_loss(
        partial(ppo_loss, config=config), {}, [term], {}, output, data, config=config, vocabulary=9
    )
    return loss.item(), metrics


OF_DEMONSTRATION = -0.5 * torch.tensor([-0.5, -1.5, -3.0]).exp().sum().item()


def test_a_joint_mean_is_one_mean_and_entropy_is_that_of_the_policys_tokens():
    loss, metrics = loss_of("token-mean")
    # The ratio is 1, so GRPO's loss of each of the two tokens is 0.5.
    assert loss == pytest.approx((2 * 0.5 + OF_DEMONSTRATION) / 5 - ENTROPY_COEFF * (2.0 + 1.0) / 2, abs=1e-6)
    assert metrics["actor/entropy_loss"].aggregate() == pytest.approx(1.5)
    assert metrics["demonstration_loss"].aggregate() == pytest.approx(OF_DEMONSTRATION / 5, abs=1e-6)
    assert (metrics["own_entropy"].aggregate(), metrics["demonstration_entropy"].aggregate()) == (1.5, 9.0)
    assert (metrics["own_tokens"].aggregate(), metrics["demonstration_tokens"].aggregate()) == (2, 3)


def test_a_mean_of_its_own_leaves_the_policys():
    loss, _ = loss_of("token-mean", joint=False)
    assert loss == pytest.approx(0.5 + OF_DEMONSTRATION / 3 - ENTROPY_COEFF * 1.5, abs=1e-6)


def test_a_joint_term_follows_verls_way_to_average():
    loss, _ = loss_of("seq-mean-token-sum-norm")
    assert loss == pytest.approx((2 * 0.5 + OF_DEMONSTRATION - ENTROPY_COEFF * 3.0) / 2 / 10, abs=1e-6)
    loss, _ = loss_of("seq-mean-token-mean")
    assert loss == pytest.approx((0.5 + OF_DEMONSTRATION / 3 - ENTROPY_COEFF * 1.5) / 2, abs=1e-6)
