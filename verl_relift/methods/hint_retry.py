"""Failed questions again in the same step, with more and more guidance, until some answers are right.

With heads of the solution as forced tokens (as arXiv 2506.17211, BREAD, at fixed levels), or with hints in the question
(arXiv 2507.10628, GHPO; 2602.03143, SAGE; 2510.19807, Scaf-GRPO).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..demonstrations.guidance import as_text, head, with_hint
from ..settings import SettingsError, SolutionSettings, require_places
from ..types import Group, Prompt, Question
from .base import Method, Needs
from .gate import is_hardest
from .guidance import Kind, Rounds, Under, room_problems, solutions_of


@dataclass(frozen=True)
class HintRetrySettings:
    """`method` with `method=hint_retry`."""

    demonstrations: SolutionSettings = field(default_factory=SolutionSettings)
    kind: Kind = Kind.PREFIX
    levels: tuple[float, ...] = (0.25, 0.5, 0.75)  # of the solution
    column: str = "hints"
    max_levels: int = 3  # hints of a question that are tried
    template: str = "{question}\n\nHint: {hint}"
    loss: Under = Under.SAMPLED
    max_accuracy: float = 0.0  # a question is asked again when at most this fraction of its answers is right
    first_step: int = 1  # nothing is asked again before it

    def __post_init__(self):
        levels = list(self.levels)
        if not levels or levels != sorted(set(levels)) or not 0.0 < levels[0] <= levels[-1] <= 1.0:
            raise SettingsError(f"method.levels={levels} must be one fraction of a solution or more, rising, in (0, 1]")
        for name, value in (("max_levels", self.max_levels), ("first_step", self.first_step)):
            if value < 1:
                raise SettingsError(f"method.{name}={value} must be at least 1")
        if not 0.0 <= self.max_accuracy < 1.0:
            raise SettingsError(f"method.max_accuracy={self.max_accuracy} must be in [0, 1)")
        require_places("method.template", self.template)


class HintRetry(Method):
    """The policy update trains on the last group of each question, as on any other; no gradient goes to guidance."""

    Settings = HintRetrySettings

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        if settings.kind is Kind.COLUMN:
            return Needs(retries=settings.max_levels, hints_column=settings.column)
        return Needs(demonstrations=settings.demonstrations, retries=len(settings.levels))

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        if settings.kind is Kind.PREFIX:
            yield from room_problems(settings.demonstrations, settings.levels[-1], config)

    def retry(self, groups: Sequence[Group], step: int, attempt: int) -> list[Prompt]:
        if attempt == 1:
            self.rounds, self.solutions, self.asked = Rounds(), {}, set()
        if step < self.settings.first_step:
            return []
        candidates = [group for group in groups if attempt == 1 or group.question.draw in self.asked]
        self.rounds.answer(attempt - 1, candidates if attempt > 1 else [])
        failed = [group.question for group in candidates if is_hardest(group.accuracy, self.settings.max_accuracy)]
        if attempt == 1 and self.settings.kind is not Kind.COLUMN:
            self.solutions, rejected = solutions_of(failed, step, self.settings.demonstrations, self.resources)
            self.rounds.unguided.update(rejected)
        prompts = [prompt for question in failed if (prompt := self.guided(question, attempt)) is not None]
        self.asked = {prompt.question.draw for prompt in prompts}
        self.rounds.ask(attempt, groups, prompts)
        return prompts

    def guided(self, question: Question, level: int) -> Prompt | None:
        """Return a question with the guidance of a level, from 1; None if there is none."""
        settings, bare = self.settings, Prompt.bare(question)
        if settings.kind is Kind.COLUMN:
            hint = "".join(question.hints[: settings.max_levels][level - 1 : level])
        elif level > len(settings.levels) or question.draw not in self.solutions:
            return None
        else:
            solution = self.solutions[question.draw]
            tokens = head(solution, settings.levels[level - 1]) or solution[:1]
            if settings.kind is Kind.PREFIX and tokens:
                return replace(bare, forced=tokens)
            hint = as_text(tokens, self.resources.tokenizer)
        if not hint:
            return None
        messages = with_hint(question.messages, settings.template, hint)
        if not self.resources.fits(question, messages):
            self.rounds.unguided["prompt_too_long"] += 1
            return None
        under = question.messages if settings.loss is Under.BARE else None
        return replace(bare, messages=messages, trained_under=under)

    def metrics(self) -> dict[str, float]:
        return self.rounds.metrics()
