"""Losses of a token and their weights, as pure functions of what the policy says about it; methods compose them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..types import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenStatistics:
    """What a weight may depend on; all of shape [tokens], float.

    `log_prob` carries gradient, so that a weight decides itself whether it is differentiated (detach it or not).
    """

    log_prob: "Tensor"  # of the token under the current policy
    old_log_prob: "Tensor"  # under the policy before this step's updates
    entropy: "Tensor | None"  # of the policy's distribution at the token, nats; None where it is not computed
    advantage: "Tensor"
    vocabulary: int = 0  # token ids of the model
    roles: "Tensor | None" = None  # values of `Role`, int64
    rows: "Tensor | None" = None  # the number of the token's sequence in its micro-batch, int64
    reward: "Tensor | None" = None  # of the token's row, where the method reads rewards


Weight = Callable[[TokenStatistics], "Tensor"]
TokenLoss = Callable[[TokenStatistics], "Tensor"]


@dataclass(frozen=True)
class Term:
    """A term of the policy loss: the loss of each token of one role, with a normalizer of its own.

    A joint term treats its rows as rollouts: verl's `loss_agg_mode` divides it, and a mean over tokens is one mean over
    what the policy wrote and over the tokens of joint terms. Any other term is a mean over the tokens of its role.
    Tokens are counted in the whole global batch, over all micro-batches and data-parallel ranks.
    """

    role: Role
    loss: TokenLoss
    joint: bool = False


def probability(token: TokenStatistics) -> "Tensor":
    """Return p without gradient: DFT's weight, whose gradient is that of an importance ratio to probability 1."""
    return token.log_prob.detach().exp()


def uncertain(token: TokenStatistics) -> "Tensor":
    """Return p (1 - p) without gradient: small on what the policy is sure of, and on what it finds impossible."""
    p = probability(token)
    return p * (1.0 - p)


def likelihood(weight: Weight) -> TokenLoss:
    """Return -w log p, the supervised loss of a token with a weight."""
    return lambda token: -weight(token) * token.log_prob
