"""UFT (arXiv 2505.16984): answers begin with segments of their question's solution, fewer and fewer of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..settings import SettingsError, SolutionSettings
from ..types import Prompt, Question, Role
from .guidance import GuidedMethod, cosine, room_problems
from .weight import Weight


@dataclass(frozen=True)
class UFTSettings:
    """`method` with `method=uft`."""

    demonstrations: SolutionSettings = field(default_factory=SolutionSettings)
    segments: int = 5
    first: float = 0.95  # probability of each segment at the beginning
    last: float = 0.05  # in step `steps`
    steps: int = 300  # none is given after it
    hint_coeff: float = 1e-3  # of -log p of given tokens

    def __post_init__(self):
        if self.segments < 1:
            raise SettingsError(f"method.segments={self.segments} must be at least 1")
        if self.steps < 0:
            raise SettingsError(f"method.steps={self.steps} must not be negative")
        if self.hint_coeff < 0.0:
            raise SettingsError(f"method.hint_coeff={self.hint_coeff} must not be negative")
        for name in ("first", "last"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise SettingsError(f"method.{name}={getattr(self, name)} must be in [0, 1]: it is a probability")


class UFT(GuidedMethod):
    """The policy loss of what it writes itself, plus hint_coeff times the mean of -log p over given tokens."""

    Settings = UFTSettings
    weights: ClassVar[Mapping[Role, Weight]] = {Role.HINT: lambda token: 1.0}

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        yield from room_problems(settings.demonstrations, 1.0, config)

    def prompts(self, questions: Sequence[Question], step: int) -> list[Prompt]:
        if step > self.settings.steps:
            return super().prompts(questions, step)
        return self.with_heads(questions, step, lambda question: self.drawn(question, step) / self.settings.segments)

    def drawn(self, question: Question, step: int) -> int:
        """Return how many segments are given: binomial, one draw for all answers to a question."""
        probability = cosine(self.settings.first, self.settings.last, step, self.settings.steps)
        rng = self.resources.rng(f"segments/{question.draw}", step)
        return sum(rng.random() < probability for _ in range(self.settings.segments))

    def coefficients(self, step: int) -> dict[Role, float]:
        return {Role.HINT: self.settings.hint_coeff}
