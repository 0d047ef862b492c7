"""ReGFT (arXiv 2603.01223) during RL: failed questions are answered with the solution in view, and learned without.

The right answers join the RL update as supervised rows. It is HDPO (arXiv 2603.23871) with -log p of the sampled token
in place of its divergence.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from ..settings import BufferSettings, PrivilegedSettings, SolutionSettings, Source, TeacherSettings
from .gate import TriggerSettings
from .placement import SpliceSettings
from .relift_splice import SplicedReLIFT
from .schedule import Schedule, ScheduleSettings


@dataclass(frozen=True)
class PrivilegedDemonstrationSettings(SolutionSettings):
    """`method.demonstrations` with `method=regft`: which solutions are shown, and how long a trace may be."""

    source: ClassVar[Source] = Source.PRIVILEGED


@dataclass(frozen=True)
class ReGFTSettings:
    """`method` with `method=regft`."""

    schedule: ClassVar[ScheduleSettings] = ScheduleSettings(kind=Schedule.ALWAYS)
    buffer: ClassVar[BufferSettings] = BufferSettings()
    teacher: ClassVar[TeacherSettings] = TeacherSettings()
    trigger: TriggerSettings = field(default_factory=TriggerSettings)
    demonstrations: PrivilegedDemonstrationSettings = field(default_factory=PrivilegedDemonstrationSettings)
    privileged: PrivilegedSettings = field(default_factory=PrivilegedSettings)
    sft: SpliceSettings = field(default_factory=SpliceSettings)


class ReGFT(SplicedReLIFT):
    """Each RL update carries what the policy has written of its hardest questions with their solutions in view."""

    Settings = ReGFTSettings
