"""Weights of a token's loss as pure functions of what the policy says about it (methods compose them, by role)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


Weight = Callable[[TokenStatistics], "Tensor"]
