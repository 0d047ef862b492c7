"""LUFFY (arXiv 2504.14945): a demonstration in every group, its advantage times a shaped probability of each token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..settings import SettingsError
from ..types import Role
from .joining import ClippingSettings, InPlaceOfARollout
from .weight import Term, TokenLoss, TokenStatistics


@dataclass(frozen=True)
class LUFFYSettings(ClippingSettings):
    """`method` with `method=luffy`."""

    gamma: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        require_gamma(self.gamma)


def require_gamma(gamma: float) -> None:
    """Check the constant of the shaping function.

    Raises:
        SettingsError: it is not positive.
    """
    if not gamma > 0.0:
        raise SettingsError(f"method.gamma={gamma} must be positive: the loss of a token is -A p / (p + gamma)")


def shaped(gamma: float) -> TokenLoss:
    """Return -A p / (p + gamma), differentiated through p."""

    def loss(token: TokenStatistics):
        p = token.log_prob.exp()
        return -token.advantage * p / (p + gamma)

    return loss


class LUFFY(InPlaceOfARollout):
    """GRPO over n-1 rollouts and the demonstration; one mean over the tokens of both."""

    Settings = LUFFYSettings

    @classmethod
    def terms(cls, settings: Any) -> Sequence[Term]:
        return [Term(Role.DEMONSTRATION, shaped(settings.gamma), joint=True)]
