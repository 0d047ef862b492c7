"""Rows that a method adds or leaves out: their columns, advantages and metrics, without TransferQueue."""

import pytest
import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from tests.unit.configurations import configuration
from tests.unit.methods.steps import TOKENIZER, group, question
from verl_relift.demonstrations.buffer import Demonstration
from verl_relift.methods.placement import demonstration_row
from verl_relift.rollout.advantages import _with_guided, row_advantage
from verl_relift.rollout.rows import _columns, _tag, graded_metrics, loss_shares, outcome_fractions
from verl_relift.types import Role


def added(counts_in_mean: bool = True):
    graded = group(question(1), 0.0, 1.0)
    ids = (*TOKENIZER.encode("\\boxed{1}"), TOKENIZER.eos_token_id)
    return graded, demonstration_row(graded, Demonstration("q1", (5, 6), ids, 1), counts_in_mean)


def test_an_added_row_has_the_columns_of_a_rollout_and_no_token_of_the_policys():
    graded, row = added()
    columns = _columns([(graded, row)], configuration("actor_rollout_ref.rollout.calculate_log_probs=true"))
    tokens = row.tokens
    assert columns["input_ids"][0].tolist() == [5, 6, *row.token_ids.tolist()]
    assert columns["position_ids"][0].tolist() == list(range(2 + tokens))
    assert columns["response_mask"][0].tolist() == columns["loss_mask"][0].tolist() == [0] * tokens
    assert columns["roles"][0].tolist() == [Role.DEMONSTRATION] * tokens
    assert columns["rm_scores"][0].tolist() == [0.0] * (tokens - 1) + [1.0]
    assert columns["rollout_log_probs"][0].tolist() == [0.0] * tokens
    assert list(columns["uid"]) == [graded.question.draw]
    sibling = {"status": "success", "prompt_len": 9, "response_len": 9, "seq_len": 18, "min_global_steps": 4}
    tag = _tag(row, sibling)
    assert (tag["prompt_len"], tag["response_len"], tag["seq_len"], tag["added"]) == (2, tokens, 2 + tokens, True)
    assert tag["min_global_steps"] == 4 and tag["status"] == "success"


def test_a_row_that_does_not_count_in_the_mean_is_a_group_of_its_own():
    graded, row = added(counts_in_mean=False)
    assert list(_columns([(graded, row)], configuration())["uid"]) == [row.key]


@pytest.mark.parametrize("by_std", [False, True])
@pytest.mark.parametrize("rewards", [[0.0, 1.0, 0.0, 1.0], [1.0], [1.0, 1.0]])
def test_a_rows_advantage_is_verls(by_std, rewards):
    """verl's estimator, on rows that are not masked."""
    scores = torch.tensor(rewards)[:, None]
    index = ["q"] * len(rewards)
    theirs, _ = compute_grpo_outcome_advantage(
        scores.clone(), torch.ones_like(scores), index, norm_adv_by_std_in_grpo=by_std
    )
    ours = [row_advantage(reward, rewards, by_std) for reward in rewards]
    assert ours == pytest.approx(theirs[:, 0].tolist(), abs=1e-6)


def test_only_guided_tokens_get_the_rows_advantage():
    roles = [torch.tensor([Role.HINT, Role.CONTINUATION]), torch.tensor([Role.DEMONSTRATION] * 2)]
    own = [torch.tensor([0.0, 0.5]), torch.tensor([0.0, 0.0])]
    assert [row.tolist() for row in _with_guided(roles, own, [2.0, 0.75])] == [[2.0, 0.5], [0.75, 0.75]]


def test_metrics_of_rewards_and_lengths_are_those_of_all_graded_rollouts():
    metrics = graded_metrics([group(question(1), 0.0, 0.0), group(question(2), 1.0, 0.0)])
    assert (metrics["critic/score/mean"], metrics["critic/rewards/max"], metrics["response_length/mean"]) == (
        0.25,
        1.0,
        3.0,
    )
    assert graded_metrics([]) == {}


def test_shares_of_the_loss_add_up_to_one():
    shares = loss_shares({"actor/own_loss": -0.1, "actor/demonstration_loss": 0.3}, 0.0)
    assert shares == {
        "actor/own_loss_share": pytest.approx(0.25),
        "actor/demonstration_loss_share": pytest.approx(0.75),
    }
    assert loss_shares({"actor/loss": 0.1, "relift/sft_loss": 3.0}, 0.1)["actor/own_loss_share"] == pytest.approx(0.25)
    assert loss_shares({"actor/loss": 0.1}, 0.0) == loss_shares({"actor/own_loss": 0.1}, 0.0) == {}


def test_outcomes_are_fractions_of_all_rollouts():
    groups = [group(question(1), 0.0, 0.0, outcome="wrong"), group(question(2), 1.0, 1.0, outcome="correct")]
    assert outcome_fractions(groups) == {"relift/outcome/wrong": 0.5, "relift/outcome/correct": 0.5}
    assert outcome_fractions([group(question(1), 0.0, outcome=3), group(question(2), 1.0)]) == {}
