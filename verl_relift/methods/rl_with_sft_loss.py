"""RL with an SFT loss: the demonstrations of all questions of a step in its RL update, ungated."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..settings import BufferSettings, DemonstrationSettings, PrivilegedSettings, TeacherSettings, require_teacher
from .gate import Select, TriggerSettings
from .placement import SpliceSettings
from .relift_splice import SplicedReLIFT
from .schedule import Schedule, ScheduleSettings


@dataclass(frozen=True)
class RLWithSFTLossSettings:
    """`method` with `method=rl_with_sft_loss`."""

    trigger: ClassVar[TriggerSettings] = TriggerSettings(select=Select.ALL)
    schedule: ClassVar[ScheduleSettings] = ScheduleSettings(kind=Schedule.ALWAYS)
    buffer: ClassVar[BufferSettings] = BufferSettings()
    demonstrations: DemonstrationSettings = field(default_factory=DemonstrationSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    privileged: PrivilegedSettings = field(default_factory=PrivilegedSettings)
    sft: SpliceSettings = field(default_factory=SpliceSettings)

    def __post_init__(self):
        require_teacher(self.demonstrations, self.teacher)


class RLWithSFTLoss(SplicedReLIFT):
    """Every question gives its demonstration, and up to `method.sft.batch_size` of those that wait join each update.

    By default that is as many as a step has questions, so only those wait that the data-parallel size leaves over, or
    that a teacher sends later.
    """

    Settings = RLWithSFTLossSettings
