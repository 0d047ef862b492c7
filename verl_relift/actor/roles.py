"""The policy loss of a method that trains on tokens by who wrote them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import agg_loss
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import response_from_nested

from ..methods.weight import Term, TokenStatistics, Weight
from ..types import Role
from .batch import jagged_like
from .losses import POLICY_ROLES, guided_terms, weigh_advantages

_POLICY_ROLES = torch.tensor(POLICY_ROLES)
_NOBODY = -1  # the role of a token that is not trained on


@contextmanager
def role_tokens_counted(engine) -> Iterator[None]:
    """While active, batches with a column `roles` that `engine` trains on know how many tokens each role has.

    verl counts the tokens of a global batch in the same place and way, for the normalizer of its own loss.
    """
    forward_backward_batch = engine.forward_backward_batch

    def count_and_run(data: TensorDict, loss_function: Callable, forward_only: bool = False):
        if "roles" in data:
            roles, masked = data["roles"].values(), ~data["response_mask"].values().bool()
            roles = roles[~(masked & torch.isin(roles, _POLICY_ROLES.to(roles.device)))]  # not padding, nor rejected
            counts = torch.bincount(roles, minlength=len(Role)).to(get_device_id())
            torch.distributed.all_reduce(counts, group=engine.get_data_parallel_group())
            tu.assign_non_tensor(data, role_num_tokens=tuple(counts.tolist()))
        return forward_backward_batch(data, loss_function, forward_only)

    engine.forward_backward_batch = count_and_run
    try:
        yield
    finally:
        del engine.forward_backward_batch  # the class's own again


def role_loss(
    policy_loss: Callable,
    weights: Mapping[Role, Weight],
    terms: Sequence[Term],
    coefficients: Mapping[Role, float],
    model_output: dict,
    data: TensorDict,
    dp_group=None,
    *,
    config: Any,
    vocabulary: int,
):
    """Return verl's policy loss on what the policy wrote, plus terms with normalizers of their own.

    Args:
        policy_loss: verl's, in the form that its engine calls. Weights of own tokens and continuations multiply the
            advantages in it; the coefficient of `Role.OWN` multiplies all of it, entropy and KL terms included.
        terms: the method's, and those of its weights (`all_terms`).
        data: as verl's engine has it, with jagged `roles` [rows, response tokens] where rows are not all the policy's
            own; without them every token is.
        config: verl's of the actor, for `loss_agg_mode`.
        vocabulary: token ids of the model.
    """
    statistics = _statistics(model_output, data, vocabulary)
    roles, advantages, dp_size = statistics.roles, data["advantages"], data["dp_size"]
    counts = tu.get_non_tensor_data(data, key="role_num_tokens", default=None)
    counts = [0] * len(Role) if counts is None else counts
    joint = {term.role for term in terms if term.joint and term.role not in POLICY_ROLES}
    own_tokens = data["batch_num_tokens"]
    tokens = own_tokens + sum(counts[role] for role in joint) or 1
    tu.assign_non_tensor(data, batch_num_tokens=own_tokens or 1)  # a mini-batch may have no token of the policy's
    # verl's policy loss is proportional to the advantages: a factor on them makes its mean a joint one, and leaves the
    # means of entropy and KL those of what the policy wrote.
    share = own_tokens / tokens if config.loss_agg_mode == "token-mean" else 1.0
    data["advantages"] = jagged_like(share * weigh_advantages(statistics, roles, weights), advantages)
    loss, metrics = policy_loss(model_output=model_output, data=data, dp_group=dp_group)
    losses = {Role.OWN: coefficients.get(Role.OWN, 1.0) * loss}

    def joint_mean(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        padded, mask = (jagged_like(column, advantages).to_padded_tensor(0) for column in (values, chosen.long()))
        return agg_loss(
            padded,
            mask.bool(),
            config.loss_agg_mode,
            batch_num_tokens=tokens,
            global_batch_size=data["global_batch_size"],
            loss_scale_factor=config.loss_scale_factor,
        )

    for role, term in guided_terms(statistics, roles, terms, counts, coefficients, joint_mean).items():
        # The engine averages gradients over data-parallel ranks.
        losses[role] = losses.get(role, 0.0) + term * dp_size
    if any(counts[role] for role in Role if role is not Role.OWN):
        metrics |= {_name(role, "loss"): Metric(AggregationType.SUM, part.detach()) for role, part in losses.items()}
        metrics |= _by_role(roles, counts, statistics.entropy, dp_size)
    return sum(losses.values()), metrics


def _statistics(model_output: dict, data: TensorDict, vocabulary: int) -> TokenStatistics:
    """Return what losses and weights depend on, of all response tokens of a micro-batch."""
    log_probs = response_from_nested(model_output["log_probs"], data["response_mask"]).values()
    entropy = model_output.get("entropy")
    mask, lengths = data["response_mask"].values().bool(), data["response_mask"].offsets().diff()
    roles = data["roles"].values() if "roles" in data else torch.full_like(mask, Role.OWN, dtype=torch.int64)
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    return TokenStatistics(
        log_prob=log_probs,
        old_log_prob=data["old_log_probs"].values(),
        entropy=None if entropy is None else response_from_nested(entropy, data["response_mask"]).values(),
        advantage=data["advantages"].values(),
        vocabulary=vocabulary,
        # What is masked among the policy's own tokens is padding, or rejected.
        roles=torch.where(mask | ~torch.isin(roles, _POLICY_ROLES.to(roles.device)), roles, _NOBODY),
        rows=rows,
        reward=torch.stack([row.sum() for row in data["rm_scores"].unbind()])[rows] if "rm_scores" in data else None,
    )


def _name(role: Role, metric: str) -> str:
    return f"{role.name.lower()}_{metric}"


def _by_role(roles: torch.Tensor, counts: Sequence[int], entropy: torch.Tensor | None, dp_size: int) -> dict:
    """Return how many tokens each role has, and their mean entropy where entropy is computed."""
    metrics = {}
    for role in Role:
        if not counts[role]:
            continue
        metrics[_name(role, "tokens")] = Metric(AggregationType.MAX, counts[role])
        if entropy is not None:
            mean = torch.where(roles == role, entropy.detach(), 0.0).sum() / counts[role]
            metrics[_name(role, "entropy")] = Metric(AggregationType.SUM, mean * dp_size)
    return metrics
