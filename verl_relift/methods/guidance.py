"""What methods share that guide what is sampled: verified solutions, courses over steps, and counts of what it does."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import fmean
from typing import Any

from ..demonstrations.guidance import head, verified_solutions
from ..demonstrations.verify import Rejected
from ..settings import DemonstrationSettings
from ..types import Group, Prompt, Question
from .base import Method, Needs, Resources, Supervised


class Kind(StrEnum):
    """Where guidance stands."""

    PREFIX = "prefix"  # at the head of the answer: the head of the solution as forced tokens
    HINT = "hint"  # in the question: the head of the solution as text
    COLUMN = "column"  # in the question: the texts of the column `hints`, one per level


class Under(StrEnum):
    """What the loss conditions on."""

    SAMPLED = "sampled"  # the prompt that was sampled from
    BARE = "bare"  # the question without the hint


def solutions_of(
    questions: Sequence[Question], step: int, settings: DemonstrationSettings, resources: Resources
) -> tuple[dict[str, tuple[int, ...]], Counter[Rejected]]:
    """Return `demonstrations.guidance.verified_solutions` with what the trainer lends."""
    return verified_solutions(questions, step, settings, resources.tokenizer, resources.encode_prompt, resources.reward)


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Return the value at `step` of a course that falls as half a cosine wave from step 0 to step `steps`, then stays.

    last + (first - last) (1 + cos(pi s / S)) / 2.
    """
    done = min(1.0, step / steps) if steps else 1.0
    return last + 0.5 * (first - last) * (1.0 + math.cos(math.pi * done))


def reliance(groups: Sequence[Group]) -> dict[str, float]:
    """Return what heads of answers did in groups of which some answers have one: `method/forced_tokens` and others.

    `method/hint_reliance` is accuracy with a head minus accuracy without, a mean over the questions that have both
    kinds of answers.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    forced = [rollout.forced for rollout in rollouts if rollout.forced]
    differences = []
    for group in groups:
        with_head = [rollout.accuracy for rollout in group.rollouts if rollout.forced]
        without = [rollout.accuracy for rollout in group.rollouts if not rollout.forced]
        if with_head and without:
            differences.append(fmean(with_head) - fmean(without))
    metrics = {
        "method/forced_tokens": float(sum(forced)),
        "method/guided_answers": len(forced) / len(rollouts) if rollouts else 0.0,
    }
    return metrics | ({"method/hint_reliance": fmean(differences)} if differences else {})


class GuidedMethod(Method):
    """A method whose answers may begin with heads of verified solutions. Its settings have `demonstrations`."""

    def __init__(self, settings: Any, resources: Resources):
        super().__init__(settings, resources)
        self._metrics: dict[str, float] = {}

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        return Needs(demonstrations=settings.demonstrations)

    def with_heads(
        self, questions: Sequence[Question], step: int, fraction: Callable[[Question], float]
    ) -> list[Prompt]:
        """Return prompts whose answers begin with a fraction of the question's solution, if it has one that holds."""
        solutions, _ = solutions_of(questions, step, self.settings.demonstrations, self.resources)
        return [
            replace(Prompt.bare(question), forced=head(solutions.get(question.draw, ()), fraction(question)))
            for question in questions
        ]

    def supervised(self, groups: Sequence[Group], step: int) -> Supervised:
        self._metrics = reliance(groups)
        return Supervised()

    def metrics(self) -> dict[str, float]:
        return self._metrics


@dataclass
class Rounds:
    """Counts the rounds of one step beyond the first.

    `unguided` counts questions that were to be asked again and could not be, by reason.
    """

    unguided: Counter[str] = field(default_factory=Counter)
    _before: dict[str, float] = field(default_factory=dict)  # accuracy without guidance, by question
    _after: dict[str, float] = field(default_factory=dict)  # with the last guidance
    _asked: Counter[int] = field(default_factory=Counter)  # questions, by level
    _solved: Counter[int] = field(default_factory=Counter)
    _sampled: int = 0
    _forced: int = 0

    def ask(self, level: int, groups: Sequence[Group], prompts: Sequence[Prompt]) -> None:
        """Note that the questions of `groups` are asked again: those in `prompts`, with guidance of a level from 1."""
        accuracies = {group.question.id: group.accuracy for group in groups}
        for prompt in prompts:
            self._before.setdefault(prompt.question.id, accuracies[prompt.question.id])
        if prompts:
            self._asked[level] += len(prompts)

    def answer(self, level: int, groups: Sequence[Group]) -> None:
        """Note the graded answers to what was asked at a level."""
        for group in groups:
            self._after[group.question.id] = group.accuracy
            self._solved[level] += group.accuracy > 0.0
            self._sampled += sum(rollout.tokens - rollout.forced for rollout in group.rollouts)
            self._forced += sum(rollout.forced for rollout in group.rollouts)

    def metrics(self) -> dict[str, float]:
        """Return the counts as `method/*`."""
        metrics: dict[str, float] = {"method/second_round_tokens": self._sampled, "method/forced_tokens": self._forced}
        for level, asked in self._asked.items():
            metrics[f"method/asked_again/level_{level}"] = asked
            metrics[f"method/solved/level_{level}"] = self._solved[level]
        metrics |= {f"method/unguided/{reason}": count for reason, count in self.unguided.items()}
        if self._after:
            metrics["method/hint_reliance"] = fmean(self._after[q] - self._before[q] for q in self._after)
        return metrics


def room_problems(settings: DemonstrationSettings, fraction: float, config: Any) -> Iterator[str]:
    """Yield a line if the longest head leaves the policy nothing to write.

    Args:
        settings: of the solutions.
        fraction: the largest one of a solution that is given.
        config: the whole configuration.
    """
    longest, room = int((settings.max_tokens - 1) * fraction), config.data.max_response_length
    if longest >= room:
        yield (
            f"method.demonstrations.max_tokens={settings.max_tokens}: heads of up to {longest} tokens leave nothing of "
            f"data.max_response_length={room} to write; lower it, or raise data.max_response_length"
        )


def entropy_problems(config: Any) -> Iterator[str]:
    """Yield a line if the RL update computes no entropy."""
    actor = config.actor_rollout_ref.actor
    if not (actor.calculate_entropy or actor.entropy_coeff):
        yield (
            f"method={config.method.name} chooses tokens by their entropy, which the RL update computes only with "
            "actor_rollout_ref.actor.calculate_entropy=true; set it"
        )
