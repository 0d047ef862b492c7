"""Which questions of a step get guidance (arXiv 2506.07527, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from ..settings import SettingsError
from ..types import Group, Question


class Select(StrEnum):
    """Which of a step's questions give a demonstration."""

    HARDEST = "hardest"  # accuracy at most method.trigger.max_accuracy
    OTHER = "other"  # as many as are hardest, drawn at random from those that are not (an ablation of the paper)
    ALL = "all"  # every question
    PROPORTIONAL = "proportional"  # each with the probability that one of its rollouts is wrong


@dataclass(frozen=True)
class TriggerSettings:
    """Which questions give a demonstration."""

    max_accuracy: float = 0.0
    select: Select = Select.HARDEST

    def __post_init__(self):
        if not 0.0 <= self.max_accuracy < 1.0:
            raise SettingsError(
                f"method.trigger.max_accuracy={self.max_accuracy} must be in [0, 1): 0 takes questions that every "
                "rollout failed"
            )


@dataclass(frozen=True)
class Gated:
    """The questions of a step, sorted by the gate. Both sequences are in the order of the groups."""

    chosen: tuple[Question, ...]  # these give a demonstration
    passed: tuple[Question, ...]  # these are not hardest
    metrics: dict[str, float]


def is_hardest(accuracy: float, max_accuracy: float) -> bool:
    """Whether at most `max_accuracy` of a question's rollouts are right; the paper's value is 0."""
    return accuracy <= max_accuracy


def gate(groups: Sequence[Group], settings: TriggerSettings, rng: Random) -> Gated:
    """Choose the questions that give a demonstration.

    Args:
        groups: graded groups of the step.
        rng: draws where `settings.select` is `other` or `proportional`.
    """
    hardest = {group.question.draw for group in groups if is_hardest(group.accuracy, settings.max_accuracy)}
    match settings.select:
        case Select.HARDEST:
            chosen = hardest
        case Select.ALL:
            chosen = {group.question.draw for group in groups}
        case Select.PROPORTIONAL:
            in_order = sorted(groups, key=lambda group: group.question.draw)
            chosen = {group.question.draw for group in in_order if rng.random() >= group.accuracy}
        case Select.OTHER:
            others = sorted(group.question.draw for group in groups if group.question.draw not in hardest)
            chosen = set(rng.sample(others, min(len(hardest), len(others))))
    questions = [group.question for group in groups]
    return Gated(
        chosen=tuple(question for question in questions if question.draw in chosen),
        passed=tuple(question for question in questions if question.draw not in hardest),
        metrics={
            "relift/hardest_questions": len(hardest),
            "relift/hardest_fraction": len(hardest) / len(groups),
        },
    )
