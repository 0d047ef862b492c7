"""Losses as pure functions of tensors: the supervised loss on demonstrations, and terms of tokens by role."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..methods.weight import TokenStatistics, Weight
from ..types import Role


@dataclass(frozen=True)
class SupervisedLoss:
    """Scalars of one micro-batch, each already its share of the global token mean: they add up over micro-batches."""

    loss: Tensor  # what is differentiated
    negative_log_likelihood: Tensor
    entropy: Tensor


def supervised_loss(
    log_probs: Tensor, entropy: Tensor | None, mask: Tensor, num_tokens: int, entropy_coeff: float
) -> SupervisedLoss:
    """L = -(1/T) sum_t log pi(s_t | q, s_<t) - alpha (1/T) sum_t H_t.

    T counts the demonstration tokens of the whole global batch, over all micro-batches and data-parallel ranks, so
    the sum of the results over micro-batches and ranks does not depend on how the batch was split. A mean of
    micro-batch means would weigh tokens by the length of their neighbors (arXiv 2604.23747).

    Args:
        log_probs: [tokens] float, log-probability of the token that follows each position.
        entropy: [tokens] float, entropy in nats of the distribution at each position; may be None if alpha is 0.
        mask: [tokens] bool, true where the token that follows is a demonstration token.
        num_tokens: T.
        entropy_coeff: alpha; positive values keep the policy from sharpening.

    Source: arXiv 2506.07527, equation of the online fine-tuning loss with its entropy term.
    """
    zero = log_probs.new_zeros(())
    nll = -torch.where(mask, log_probs, zero).sum() / num_tokens
    if entropy is None:
        if entropy_coeff != 0.0:
            raise ValueError(f"entropy_coeff={entropy_coeff} needs the entropy")
        return SupervisedLoss(nll, nll, zero)
    mean_entropy = torch.where(mask, entropy, zero).sum() / num_tokens
    return SupervisedLoss(nll - entropy_coeff * mean_entropy, nll, mean_entropy)


# What the policy wrote in this step: verl's policy loss trains on it.
POLICY_ROLES = (Role.OWN, Role.CONTINUATION)


def weigh_advantages(statistics: TokenStatistics, roles: Tensor, weights: Mapping[Role, Weight]) -> Tensor:
    """Return advantages times the weights of the tokens that the policy wrote, [tokens]; without gradient.

    Args:
        roles: [tokens] int64, values of `Role`.
    """
    advantages = statistics.advantage
    for role in POLICY_ROLES:
        if role in weights:
            advantages = torch.where(roles == role, advantages * weights[role](statistics).detach(), advantages)
    return advantages


def guided_terms(
    statistics: TokenStatistics,
    roles: Tensor,
    weights: Mapping[Role, Weight],
    num_tokens: Sequence[int],
    coefficients: Mapping[Role, float],
) -> dict[Role, Tensor]:
    """Return -c_r (1/T_r) sum_t w_r(t) log pi(t) of every weighted role r that the policy did not write.

    T_r counts the tokens of role r in the whole global batch, over all micro-batches and data-parallel ranks, so the
    sum of the results over micro-batches and ranks does not depend on how the batch was split. A weight that is not
    to be differentiated detaches what it returns.

    Args:
        roles: [tokens] int64, values of `Role`.
        num_tokens: T_r, by the value of the role.
        coefficients: c_r; 1 where a role is not in it.
    """
    terms = {}
    for role, weight in weights.items():
        if role in POLICY_ROLES or not num_tokens[role]:
            continue
        weighted = torch.where(
            roles == role, weight(statistics) * statistics.log_prob, statistics.log_prob.new_zeros(())
        )
        terms[role] = -coefficients.get(role, 1.0) * weighted.sum() / num_tokens[role]
    return terms
