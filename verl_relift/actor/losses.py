"""Losses as pure functions of tensors: the supervised loss on demonstrations, and terms of tokens by role."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..methods.weight import Term, TokenStatistics, Weight, likelihood
from ..types import Role


@dataclass(frozen=True)
class SupervisedLoss:
    """Scalars of one micro-batch, each already its share of the global token mean: they add up over micro-batches."""

    loss: Tensor  # what is differentiated
    negative_log_likelihood: Tensor
    entropy: Tensor


def supervised_loss(
    log_probs: Tensor,
    entropy: Tensor | None,
    mask: Tensor,
    num_tokens: int,
    entropy_coeff: float,
    weights: Tensor | float = 1.0,
) -> SupervisedLoss:
    """L = -(1/T) sum_t w_t log pi(s_t | q, s_<t) - alpha (1/T) sum_t H_t.

    T counts the demonstration tokens of the whole global batch, over all micro-batches and data-parallel ranks, so
    the sum of the results over micro-batches and ranks does not depend on how the batch was split. A mean of
    micro-batch means would weigh tokens by the length of their neighbors (arXiv 2604.23747).

    Args:
        log_probs: [tokens] float, log-probability of the token that follows each position.
        entropy: [tokens] float, entropy in nats of the distribution at each position; may be None if alpha is 0.
        mask: [tokens] bool, true where the token that follows is a demonstration token.
        num_tokens: T.
        entropy_coeff: alpha; positive values keep the policy from sharpening.
        weights: w, [tokens] or one for all.

    Source: arXiv 2506.07527, equation of the online fine-tuning loss with its entropy term.
    """
    zero = log_probs.new_zeros(())
    nll = -torch.where(mask, log_probs, zero).sum() / num_tokens
    weighted = -torch.where(mask, weights * log_probs, zero).sum() / num_tokens
    if entropy is None:
        if entropy_coeff != 0.0:
            raise ValueError(f"entropy_coeff={entropy_coeff} needs the entropy")
        return SupervisedLoss(weighted, nll, zero)
    mean_entropy = torch.where(mask, entropy, zero).sum() / num_tokens
    return SupervisedLoss(weighted - entropy_coeff * mean_entropy, nll, mean_entropy)


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


def all_terms(weights: Mapping[Role, Weight], terms: Sequence[Term]) -> list[Term]:
    """Return the terms beside verl's policy loss: those of a method, and -w log p of weighted tokens of others."""
    supervised = [Term(role, likelihood(weight)) for role, weight in weights.items() if role not in POLICY_ROLES]
    return [*supervised, *terms]


def guided_terms(
    statistics: TokenStatistics,
    roles: Tensor,
    terms: Sequence[Term],
    num_tokens: Sequence[int],
    coefficients: Mapping[Role, float],
    joint_mean: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[Role, Tensor]:
    """Return c_r (1/T_r) sum_t l(t), added up by role r, of terms with losses l.

    T_r counts the tokens of role r in the whole global batch, over all micro-batches and data-parallel ranks, so the
    sum of the results over micro-batches and ranks does not depend on how the batch was split. A loss that is not to
    be differentiated detaches what it returns.

    Args:
        roles: [tokens] int64, values of `Role`.
        num_tokens: T_r, by the value of the role.
        coefficients: c_r; 1 where a role is not in it.
        joint_mean: in place of the sum over T_r where a term is joint, from the losses [tokens] and the mask [tokens]
            of the role's tokens.
    """
    sums: dict[Role, Tensor] = {}
    for term in terms:
        if not num_tokens[term.role]:
            continue
        chosen = roles == term.role
        losses = torch.where(chosen, term.loss(statistics), statistics.log_prob.new_zeros(()))
        mean = joint_mean(losses, chosen) if term.joint else losses.sum() / num_tokens[term.role]
        sums[term.role] = sums.get(term.role, 0.0) + coefficients.get(term.role, 1.0) * mean
    return sums
