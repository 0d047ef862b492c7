"""RL-PLUS (arXiv 2508.00222): a demonstration in every group, with a ratio to a mixture of policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..settings import SettingsError
from ..types import Role
from .joining import ClippingSettings, InPlaceOfARollout
from .weight import Term, TokenLoss, TokenStatistics


class Behavior(StrEnum):
    """What is assumed to have written the demonstration, beside the policy; each has half of the mixture."""

    UNIFORM = "uniform"  # a uniform distribution over the vocabulary of V tokens, 1/V: the paper's
    CERTAIN = "certain"  # probability 1: the released code's


@dataclass(frozen=True)
class RLPlusSettings(ClippingSettings):
    """`method` with `method=rl_plus`."""

    behavior: Behavior = Behavior.CERTAIN
    exploration: float = 0.5  # the exponent of 1 - p, which multiplies the advantage; 0: none

    def __post_init__(self):
        super().__post_init__()
        if not self.exploration >= 0.0:
            raise SettingsError(f"method.exploration={self.exploration} must not be negative")


def mixed(behavior: Behavior, exploration: float) -> TokenLoss:
    """Return -A (1 - sg p)^e 2p / (p_old + w) with the mixture w = (p_old + b) / 2, b = 1 or 1/V."""

    def loss(token: TokenStatistics):
        p, old = token.log_prob.exp(), token.old_log_prob.exp()
        written = 1.0 if behavior is Behavior.CERTAIN else 1.0 / token.vocabulary
        unlikely = (1.0 - p.detach()).clamp(min=0.0) ** exploration
        return -token.advantage * unlikely * 2.0 * p / (old + (old + written) / 2.0)

    return loss


class RLPlus(InPlaceOfARollout):
    """GRPO over n-1 rollouts and the demonstration; one mean over the tokens of both."""

    Settings = RLPlusSettings

    @classmethod
    def terms(cls, settings: Any) -> Sequence[Term]:
        return [Term(Role.DEMONSTRATION, mixed(settings.behavior, settings.exploration), joint=True)]
