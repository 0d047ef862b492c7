"""What methods share that collect demonstrations of the questions a gate chooses."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..demonstrations.buffer import Demonstration, DemonstrationBuffer
from ..demonstrations.collector import Collector
from ..settings import (
    BufferSettings,
    DemonstrationSettings,
    SettingsError,
    Source,
    TeacherSettings,
    require_teacher,
)
from ..types import Group
from .base import Method, Resources
from .gate import TriggerSettings, gate
from .schedule import ScheduleSettings, updates_due


@dataclass(frozen=True)
class CollectingSettings:
    """`method` of methods whose demonstrations wait until they are due. A subclass adds `sft`."""

    trigger: TriggerSettings = field(default_factory=TriggerSettings)
    demonstrations: DemonstrationSettings = field(default_factory=DemonstrationSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    buffer: BufferSettings = field(default_factory=BufferSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)

    def __post_init__(self):
        require_teacher(self.demonstrations, self.teacher)
        capacity = self.buffer.capacity
        if capacity is not None and capacity < self.sft.batch_size:
            raise SettingsError(
                f"method.buffer.capacity={capacity} is smaller than method.sft.batch_size={self.sft.batch_size}: an "
                "update would never be due; raise the one or lower the other"
            )


def make_collector(
    demonstrations: DemonstrationSettings, teacher: TeacherSettings, buffer: BufferSettings, resources: Resources
) -> Collector:
    """Return a collector, with a teacher where `demonstrations.source` asks for one."""
    server = None
    if demonstrations.source is not Source.DATASET:
        from ..demonstrations.teacher import Teacher  # its client takes seconds to import

        server = Teacher(teacher, Path(teacher.cache_dir or resources.folder / "teacher"), resources.reward)
    return Collector(
        demonstrations,
        DemonstrationBuffer(buffer),
        resources.tokenizer,
        resources.encode_prompt,
        resources.reward,
        server,
        resources.available,
    )


class CollectingMethod(Method):
    """A method that collects demonstrations of the questions its gate chooses, and trains on those that are due.

    Its settings have `demonstrations`, `teacher`, `buffer`, `schedule` and `sft.batch_size`, and `trigger` where it
    calls `collect`.
    """

    def __init__(self, settings: Any, resources: Resources):
        super().__init__(settings, resources)
        self.collector = make_collector(settings.demonstrations, settings.teacher, settings.buffer, resources)
        self._gate_metrics: dict[str, float] = {}

    def collect(self, groups: Sequence[Group], step: int) -> None:
        """Start collecting demonstrations of the questions that the gate chooses."""
        collector = self.collector
        gated = gate(groups, self.settings.trigger, self.resources.rng("select", step, collector.updates))
        recovered = sum(question.id in collector.used for question in gated.passed)
        self._gate_metrics = {**gated.metrics, "relift/hardest_recovered": recovered}
        chosen = {question.draw for question in gated.chosen}
        collector.collect(gated.chosen, [q for q in gated.passed if q.draw not in chosen], step)

    def batches_due(self, step: int) -> list[int]:
        """Return the sizes of the supervised batches to take in this step; waits for what `collect` started."""
        self.collector.settle()
        waiting, size = len(self.collector.buffer), self.settings.sft.batch_size
        return updates_due(step, waiting, size, self.settings.schedule, self.resources.data_parallel_size)

    def take(self, count: int, step: int) -> list[Demonstration]:
        """Take `count` demonstrations for one update."""
        return self.collector.take(count, self.resources.rng("take", step, self.collector.updates))

    def metrics(self) -> dict[str, float]:
        return {**self._gate_metrics, **self.collector.metrics()}

    def state_dict(self) -> dict[str, Any]:
        return self.collector.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.collector.load_state_dict(state)

    def close(self) -> None:
        self.collector.close()
