"""Prefix-RFT (arXiv 2507.01679): some answers of a group begin with the head of the question's solution."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..settings import SettingsError, SolutionSettings
from ..types import Prompt, Question, Role
from .guidance import GuidedMethod, cosine, entropy_problems, room_problems
from .heads import clipped_ratio, highest_entropy
from .weight import Term


@dataclass(frozen=True)
class PrefixRFTSettings:
    """`method` with `method=prefix_rft`."""

    demonstrations: SolutionSettings = field(default_factory=SolutionSettings)
    answers: int = 1  # of a group that begin with a head
    high: float = 0.95  # of the solution, at most
    low_first: float = 0.95  # of the solution, at least, in the beginning
    low_last: float = 0.05  # and from step `steps` on
    steps: int = 500
    entropy_share: float = 0.2  # of a head's tokens that are trained on: those of the highest entropy
    clip_low: float = 0.2
    clip_high: float = 0.2
    clip_c: float = 3.0  # dual clip: of the loss of a negative advantage

    def __post_init__(self):
        for name in ("answers", "steps"):
            if getattr(self, name) < 0:
                raise SettingsError(f"method.{name}={getattr(self, name)} must not be negative")
        for name in ("high", "low_first", "low_last", "entropy_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise SettingsError(f"method.{name}={getattr(self, name)} must be in [0, 1]")
        if not (0.0 <= self.clip_low <= 1.0 and 0.0 <= self.clip_high < math.inf and self.clip_c > 1.0):
            raise SettingsError("method.clip_low must be in [0, 1], method.clip_high at least 0, method.clip_c above 1")


def prefix_loss(token: Any, settings: PrefixRFTSettings) -> Any:
    """Return the PPO loss of a head's tokens of the highest entropy, 0 of its others; [tokens].

    Its advantage is that of the guided answer, its reward minus the mean of the others', shared by guided answers.
    """
    kept = highest_entropy(token, Role.HINT, settings.entropy_share)
    advantage = token.advantage / settings.answers
    return kept * clipped_ratio(token, advantage, settings.clip_low, settings.clip_high, settings.clip_c)


class PrefixRFT(GuidedMethod):
    """GRPO on what the policy writes, guided answers apart, and a PPO loss on the heads under the same normalizer."""

    Settings = PrefixRFTSettings

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        yield from room_problems(settings.demonstrations, max(settings.high, settings.low_first), config)
        yield from entropy_problems(config)
        if settings.answers >= config.actor_rollout_ref.rollout.n:
            yield (
                f"method.answers={settings.answers} leaves no answer without a head of "
                f"actor_rollout_ref.rollout.n={config.actor_rollout_ref.rollout.n}; lower it"
            )

    @classmethod
    def terms(cls, settings: Any) -> Sequence[Term]:
        return (Term(Role.HINT, partial(prefix_loss, settings=settings), joint=True),)

    def prompts(self, questions: Sequence[Question], step: int) -> list[Prompt]:
        if not self.settings.answers:
            return super().prompts(questions, step)
        prompts = self.with_heads(questions, step, lambda question: self.fraction(question, step))
        return [replace(prompt, guided=self.settings.answers, own_mean=True) for prompt in prompts]

    def fraction(self, question: Question, step: int) -> float:
        """Return how much of the solution is given: uniform between a lower bound that falls and `high`."""
        low = cosine(self.settings.low_first, self.settings.low_last, step, self.settings.steps)
        return self.resources.rng(f"head/{question.draw}", step).uniform(low, self.settings.high)
