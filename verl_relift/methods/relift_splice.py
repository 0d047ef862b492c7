"""ReLIFT with one optimizer step for both losses: due demonstrations join the RL update's last mini-batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..settings import SettingsError
from ..types import Group
from .base import Needs, Supervised
from .collecting import CollectingMethod, CollectingSettings
from .placement import SpliceSettings, splice_problems
from .schedule import Schedule


@dataclass(frozen=True)
class SplicedReLIFTSettings(CollectingSettings):
    """`method` with `method=relift_splice`."""

    sft: SpliceSettings = field(default_factory=SpliceSettings)

    def __post_init__(self):
        super().__post_init__()
        if self.schedule.max_updates_per_step != 1:
            raise SettingsError(
                f"method.schedule.max_updates_per_step={self.schedule.max_updates_per_step}: there is one RL update "
                "to join; set it to 1 and raise method.sft.batch_size"
            )


class SplicedReLIFT(CollectingMethod):
    """As ReLIFT, but M waiting demonstrations join the gradient of the RL update, with `method.sft.weight`."""

    Settings = SplicedReLIFTSettings

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        return Needs(
            demonstrations=settings.demonstrations,
            supervised_rows=settings.sft.batch_size,
            failed_groups=True,
            exact_rows=settings.schedule.kind is Schedule.ADAPTIVE,
            retries=int(cls.asks_again(settings)),
        )

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        yield from splice_problems(config)

    def supervised(self, groups: Sequence[Group], step: int) -> Supervised:
        self.collect(groups, step)
        due = self.batches_due(step)
        return Supervised(spliced=self.settings.sft.rows(self.take(due[0], step))) if due else Supervised()
