"""Losses of a token and their weights, as pure functions of what the policy says about it; methods compose them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
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


GAMMA = 0.1  # of the shaped probability p / (p + g)

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


def shaping(token: TokenStatistics) -> "Tensor":
    """Return g p / (p + g)^2 without gradient, g = 0.1: the derivative of p / (p + g) by log p."""
    p = probability(token)
    return GAMMA * p / (p + GAMMA) ** 2


class TokenWeight(StrEnum):
    """What multiplies -log p of a demonstration's token; no gradient flows through it."""

    ONE = "one"
    PHI = "phi"  # p (1 - p)
    SHAPED = "shaped"  # g p / (p + g)^2, g = 0.1: the gradient is that of -p / (p + g)
    PROBABILITY = "probability"  # p: DFT; SFT with an importance ratio has the same gradient

    @property
    def function(self) -> Weight | None:
        """The weight; None: 1."""
        return _FUNCTIONS.get(self)


_FUNCTIONS = {TokenWeight.PHI: uncertain, TokenWeight.SHAPED: shaping, TokenWeight.PROBABILITY: probability}


def likelihood(weight: Weight | None) -> TokenLoss:
    """Return -w log p, the supervised loss of a token with a weight; None: 1."""
    if weight is None:
        return lambda token: -token.log_prob
    return lambda token: -weight(token) * token.log_prob
