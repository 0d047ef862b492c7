"""What methods share that collect demonstrations of the questions a gate chooses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..demonstrations.buffer import Demonstration, DemonstrationBuffer
from ..demonstrations.collector import Collector
from ..demonstrations.privileged import privileged_prompt, traces
from ..settings import (
    BufferSettings,
    DemonstrationSettings,
    PrivilegedSettings,
    SettingsError,
    Source,
    TeacherSettings,
    require_teacher,
)
from ..types import Group, Prompt, Role
from .base import Method, Resources
from .gate import Gated, TriggerSettings, gate
from .guidance import Rounds, solutions_of
from .schedule import ScheduleSettings, updates_due
from .weight import Weight


@dataclass(frozen=True)
class CollectingSettings:
    """`method` of methods whose demonstrations wait until they are due. A subclass adds `sft`."""

    trigger: TriggerSettings = field(default_factory=TriggerSettings)
    demonstrations: DemonstrationSettings = field(default_factory=DemonstrationSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    privileged: PrivilegedSettings = field(default_factory=PrivilegedSettings)
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
    if demonstrations.source.asks_teacher:
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

    Its settings have `demonstrations`, `teacher`, `buffer`, `schedule`, `sft.batch_size` and `sft.token_weight`, and
    `trigger` where it calls `collect`.
    """

    def __init__(self, settings: Any, resources: Resources):
        super().__init__(settings, resources)
        self.collector = make_collector(settings.demonstrations, settings.teacher, settings.buffer, resources)
        self._gate_metrics: dict[str, float] = {}
        self._rounds = Rounds()
        self._traces: dict[str, list[Demonstration]] = {}  # of the step, by question

    @classmethod
    def retries(cls) -> bool:
        return False  # what is asked with a solution takes no group's place

    @classmethod
    def token_weights(cls, settings: Any) -> Mapping[Role, Weight]:
        weight = settings.sft.token_weight.function
        return {} if weight is None else {Role.DEMONSTRATION: weight}

    @classmethod
    def asks_again(cls, settings: Any) -> bool:
        return settings.demonstrations.source is Source.PRIVILEGED

    def retry(self, groups: Sequence[Group], step: int, attempt: int) -> list[Prompt]:
        """Ask the chosen questions with their solutions, where those are the source."""
        if attempt > 1:
            self._take_traces([group for group in groups if group.prompt.aside], step)
            return []
        self._traces, self._rounds = {}, Rounds()
        chosen = {question.id: question for question in self._gate(groups, step).chosen}
        asked = [question for question in chosen.values() if question.id not in self.collector.buffer]
        solutions, rejected = solutions_of(asked, step, self.settings.demonstrations, self.resources)
        self.collector.rejected += rejected
        prompts = [
            privileged_prompt(question, solutions[question.draw], self.settings.privileged, self.resources.tokenizer)
            for question in asked
            if question.draw in solutions
        ]
        fitting = [prompt for prompt in prompts if self.resources.fits(prompt.question, prompt.messages)]
        self._rounds.unguided["prompt_too_long"] = len(prompts) - len(fitting)
        self._rounds.ask(1, groups, fitting)
        return fitting

    def _take_traces(self, groups: Sequence[Group], step: int) -> None:
        self._rounds.answer(1, groups)
        longest = self.settings.demonstrations.max_tokens
        for group in groups:
            bare = self.resources.encode_prompt(group.question)
            self._traces[group.question.id] = traces(group, bare, self.settings.privileged, longest, step)

    def _gate(self, groups: Sequence[Group], step: int) -> Gated:
        return gate(groups, self.settings.trigger, self.resources.rng("select", step, self.collector.updates))

    def collect(self, groups: Sequence[Group], step: int) -> None:
        """Start collecting demonstrations of the questions that the gate chooses."""
        collector, gated = self.collector, self._gate(groups, step)
        recovered = sum(question.id in collector.used for question in gated.passed)
        self._gate_metrics = {**gated.metrics, "relift/hardest_recovered": recovered}
        chosen = {question.draw for question in gated.chosen}
        collector.collect(gated.chosen, [q for q in gated.passed if q.draw not in chosen], step, self._traces)

    def batches_due(self, step: int) -> list[int]:
        """Return the sizes of the supervised batches to take in this step; waits for what `collect` started."""
        self.collector.settle()
        waiting, size = len(self.collector.buffer), self.settings.sft.batch_size
        return updates_due(step, waiting, size, self.settings.schedule, self.resources.data_parallel_size)

    def take(self, count: int, step: int) -> list[Demonstration]:
        """Take `count` demonstrations for one update."""
        return self.collector.take(count, self.resources.rng("take", step, self.collector.updates))

    def metrics(self) -> dict[str, float]:
        of_rounds = self._rounds.metrics() if self.asks_again(self.settings) else {}
        return {**self._gate_metrics, **of_rounds, **self.collector.metrics()}

    def state_dict(self) -> dict[str, Any]:
        return self.collector.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.collector.load_state_dict(state)

    def close(self) -> None:
        self.collector.close()
