"""HPT (arXiv 2509.04419) and SuperRL (arXiv 2506.01096): SFT where few rollouts are right, GRPO elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar

from ..demonstrations.buffer import Demonstration
from ..settings import SettingsError
from ..types import Group, Role
from .joining import AfterRollouts, ClippingSettings
from .weight import Weight


class Rollouts(StrEnum):
    """What becomes of the rollouts of a question that gets its demonstration."""

    DROP = "drop"  # the demonstration replaces them
    KEEP = "keep"  # they are trained on beside it


@dataclass(frozen=True)
class HPTSettings(ClippingSettings):
    """`method` with `method=hpt` or `method=superrl`."""

    max_right: int | None = 0  # right rollouts of a question that gets its demonstration, at most
    max_accuracy: float | None = None  # the same as a fraction of its rollouts; one of the two is null
    rollouts: Rollouts = Rollouts.DROP

    def __post_init__(self):
        super().__post_init__()
        if (self.max_right is None) == (self.max_accuracy is None):
            raise SettingsError("method.max_right and method.max_accuracy: set one of them, and the other to null")
        if self.max_right is not None and self.max_right < 0:
            raise SettingsError(f"method.max_right={self.max_right} must not be negative")
        if self.max_accuracy is not None and not 0.0 <= self.max_accuracy <= 1.0:
            raise SettingsError(f"method.max_accuracy={self.max_accuracy} must be in [0, 1]")

    def opens(self, group: Group) -> bool:
        """Whether the group's question gets its demonstration."""
        if self.max_accuracy is not None:
            return group.accuracy <= self.max_accuracy
        return sum(rollout.accuracy for rollout in group.rollouts) <= self.max_right


class HPT(AfterRollouts):
    """A question's demonstration is a row of this step's update, with -log p; it is in no group's mean."""

    Settings = HPTSettings
    weights: ClassVar[Mapping[Role, Weight]] = {Role.DEMONSTRATION: lambda token: 1.0}

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        yield from super().problems(settings, config)
        n = config.actor_rollout_ref.rollout.n
        if settings.max_right is not None and settings.max_right > n:
            yield (
                f"method.max_right={settings.max_right} is more than actor_rollout_ref.rollout.n={n} rollouts; choose "
                f"0 to {n}"
            )

    def chosen(self, groups: Sequence[Group], step: int) -> list[Group]:
        return [group for group in groups if self.settings.opens(group)]

    def placed(self, group: Group, demonstration: Demonstration) -> Group:
        joined = self.joined(group, demonstration, counts_in_mean=False)
        drop = self.settings.rollouts is Rollouts.DROP
        return replace(joined, rollouts=joined.rollouts[-1:]) if drop else joined
