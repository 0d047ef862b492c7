"""SRFT (arXiv 2506.19767): a demonstration in every group, a supervised term on it, and weights by entropy."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..settings import SettingsError
from ..types import Role
from .joining import InPlaceOfARollout, JoiningSettings, require_coefficients
from .luffy import require_gamma, shaped
from .weight import Term, TokenLoss, Weight, likelihood


class Sign(StrEnum):
    """Of the entropy H in the weight of a demonstration's token."""

    NEGATIVE = "negative"  # exp(-H): the paper's
    POSITIVE = "positive"  # exp(+H): reported of the released code


@dataclass(frozen=True)
class SRFTSettings(JoiningSettings):
    """`method` with `method=srft`."""

    gamma: float = 0.1  # of the shaped probability
    sft_coeff: float = 0.5
    sft_entropy: Sign = Sign.NEGATIVE
    right_coeff: float = 0.1  # of right rollouts
    right_from: float = 1.0  # the least reward of a right rollout
    floor: float = 1e-4  # a wrong rollout's token with a smaller probability is not pushed further down

    def __post_init__(self):
        super().__post_init__()
        require_coefficients(self, "sft_coeff", "right_coeff")
        require_gamma(self.gamma)
        if not 0.0 < self.floor < 1.0:
            raise SettingsError(f"method.floor={self.floor} must be in (0, 1): log p has no lower bound")


def by_entropy(coeff: float, sign: float) -> Weight:
    """Return c exp(s H), without gradient."""
    return lambda token: coeff * (sign * token.entropy.detach()).exp()


def own(settings: SRFTSettings) -> TokenLoss:
    """Return the loss of a rollout's token: -c exp(H) log p in a right one, max(log p, log floor) in a wrong one."""
    right = likelihood(by_entropy(settings.right_coeff, 1.0))
    lowest = math.log(settings.floor)
    return lambda token: right(token).where(token.reward >= settings.right_from, token.log_prob.clamp(min=lowest))


class SRFT(InPlaceOfARollout):
    """Terms of LUFFY's kind and of SFT on the demonstration, and in place of GRPO's loss +-log p of rollouts."""

    Settings = SRFTSettings
    reads_rewards = True

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        yield from super().problems(settings, config)
        actor = config.actor_rollout_ref.actor
        if not (actor.calculate_entropy or actor.entropy_coeff):
            yield "actor_rollout_ref.actor.calculate_entropy=false: the weights need the entropy; set it to true"

    @classmethod
    def token_weights(cls, settings: Any) -> Mapping[Role, Weight]:
        return {Role.OWN: lambda token: 0.0 * token.log_prob} if settings.coeff else {}

    @classmethod
    def terms(cls, settings: Any) -> Sequence[Term]:
        if not settings.coeff:
            return []
        sign = -1.0 if settings.sft_entropy is Sign.NEGATIVE else 1.0
        return [
            Term(Role.DEMONSTRATION, likelihood(by_entropy(settings.sft_coeff, sign))),
            Term(Role.DEMONSTRATION, shaped(settings.gamma), joint=True),
            Term(Role.OWN, own(settings), joint=True),
        ]
