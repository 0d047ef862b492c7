"""Supervised fine-tuning alone, on the demonstration of every question, with the loss and the worker of all methods."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from ..settings import BufferSettings, DemonstrationSettings, SettingsError, Source, TeacherSettings, require_teacher
from ..types import Group
from .base import Needs, Supervised
from .placement import Moments, OwnStepSettings
from .relift import ReLIFT
from .schedule import ScheduleSettings


@dataclass(frozen=True)
class SFTMethodSettings:
    """`method` with `method=sft`."""

    schedule: ClassVar[ScheduleSettings] = ScheduleSettings(max_updates_per_step=1 << 30)  # every full batch
    buffer: ClassVar[BufferSettings] = BufferSettings()
    demonstrations: DemonstrationSettings = field(default_factory=DemonstrationSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    sft: OwnStepSettings = field(default_factory=OwnStepSettings)

    def __post_init__(self):
        require_teacher(self.demonstrations, self.teacher)
        if self.demonstrations.source is Source.PRIVILEGED:
            raise SettingsError(
                "method.demonstrations.source=privileged: this method samples nothing; choose dataset or a teacher"
            )
        if self.sft.optimizer is not Moments.SHARED:
            raise SettingsError(
                f"method.sft.optimizer={self.sft.optimizer}: there is no RL update to be separate from; set it to "
                "shared"
            )


class SFT(ReLIFT):
    """A step collects the demonstrations of its questions and makes every update that is due; nothing is sampled."""

    Settings = SFTMethodSettings

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        return replace(super().needs(settings), rollouts=False, failed_groups=False)

    def supervised(self, groups: Sequence[Group], step: int) -> Supervised:
        self.collector.collect([group.question for group in groups], [], step)
        return Supervised(updates=partial(self.updates, step))
