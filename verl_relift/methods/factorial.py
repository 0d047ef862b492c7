"""One gate, one place in the batch and one token weight for a question's demonstration, each chosen apart.

`hpt` and `luffy` are two of the combinations; a buffer and an optimizer step of its own are `relift`, with the same
gates and weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ..demonstrations.buffer import Demonstration
from ..settings import SettingsError
from ..types import Group, Role
from .gate import Select, TriggerSettings, gate
from .joining import AfterRollouts, ClippingSettings
from .luffy import shaped
from .weight import GAMMA, Term, TokenLoss, TokenWeight, likelihood


class Placement(StrEnum):
    """Where a demonstration meets its question's group."""

    SPLICED = "spliced"  # in place of all rollouts, with a mean over demonstrations' tokens
    IN_MEAN = "in_mean"  # in place of the last rollout, which the others are compared with as well
    OUT_OF_MEAN = "out_of_mean"  # the same, but no rollout is compared with it: its advantage is its reward


@dataclass(frozen=True)
class FactorialSettings(ClippingSettings):
    """`method` with `method=factorial`."""

    trigger: TriggerSettings = field(default_factory=TriggerSettings)
    placement: Placement = Placement.SPLICED
    token_weight: TokenWeight = TokenWeight.ONE
    clip: bool = True

    def __post_init__(self):
        super().__post_init__()
        trigger = self.trigger
        if trigger.select in (Select.ALL, Select.PROPORTIONAL) and trigger.max_accuracy:
            raise SettingsError(
                f"method.trigger.max_accuracy={trigger.max_accuracy} has no effect with "
                f"method.trigger.select={trigger.select}; leave it at 0"
            )


def advantage_times(weight: TokenWeight) -> TokenLoss:
    """Return -A w log p, and of the shaped probability -A p / (p + g), which has the same gradient."""
    if weight is TokenWeight.SHAPED:
        return shaped(GAMMA)
    supervised = likelihood(weight.function)
    return lambda token: token.advantage * supervised(token)


class Factorial(AfterRollouts):
    """A question that the gate chooses gets its demonstration in one of three places, with one of four weights.

    All rollouts of a question are sampled and graded, so that every gate sees as many and costs the same.
    """

    Settings = FactorialSettings

    def chosen(self, groups: Sequence[Group], step: int) -> list[Group]:
        rng = self.resources.rng("select", step)
        draws = {question.draw for question in gate(groups, self.settings.trigger, rng).chosen}
        return [group for group in groups if group.question.draw in draws]

    def placed(self, group: Group, demonstration: Demonstration) -> Group:
        placement = self.settings.placement
        joined = self.joined(group, demonstration, counts_in_mean=placement is Placement.IN_MEAN)
        kept = () if placement is Placement.SPLICED else group.rollouts[:-1]
        return replace(joined, rollouts=(*kept, joined.rollouts[-1]))

    @classmethod
    def terms(cls, settings: Any) -> Sequence[Term]:
        if settings.placement is Placement.SPLICED:
            return [Term(Role.DEMONSTRATION, likelihood(settings.token_weight.function))]
        return [Term(Role.DEMONSTRATION, advantage_times(settings.token_weight), joint=True)]
