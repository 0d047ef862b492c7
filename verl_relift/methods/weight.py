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


def likelihood(weight: Weight) -> TokenLoss:
    """Return -w log p, the supervised loss of a token with a weight."""
    return lambda token: -weight(token) * token.log_prob
