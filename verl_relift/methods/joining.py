"""What methods share whose demonstration is a row of its question's group."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..demonstrations.buffer import Demonstration
from ..demonstrations.verify import Rejected, Solution, make_demonstrations
from ..settings import SettingsError, SolutionSettings
from ..types import Group, Prompt, Question, Role
from .base import Method, Needs, Resources
from .placement import demonstration_row, group_row_problems


@dataclass(frozen=True)
class JoiningSettings:
    """`method` of methods whose demonstrations join groups."""

    demonstrations: SolutionSettings = field(default_factory=SolutionSettings)
    coeff: float = 1.0  # of the demonstrations' terms, beside the policy loss; 0: no guidance

    def __post_init__(self):
        require_coefficients(self, "coeff")


@dataclass(frozen=True)
class ClippingSettings(JoiningSettings):
    """The same with a switch for the ratio of what the policy wrote; config/method_parts/clipping.yaml follows it."""

    clip: bool = False


def require_coefficients(settings: Any, *names: str) -> None:
    """Check that coefficients are finite and not negative.

    Raises:
        SettingsError: one is not.
    """
    for name in names:
        value = getattr(settings, name)
        if not 0.0 <= value < math.inf:
            raise SettingsError(f"method.{name}={value} must be finite and not negative; 0 switches it off")


class VerifyingMethod(Method):
    """Verifies demonstrations when they are needed, and counts."""

    def __init__(self, settings: Any, resources: Resources):
        super().__init__(settings, resources)
        self._counts: Counter[str] = Counter()  # of the step

    def verified(self, questions: Sequence[Question], step: int) -> dict[str, Demonstration]:
        """Return the demonstrations of `questions` that hold, by draw; the others are counted."""
        wanted, resources = self.settings.demonstrations, self.resources
        solutions = [Solution(question, question.target, step, wanted.overlong) for question in questions]
        made = make_demonstrations(solutions, resources.tokenizer, resources.encode_prompt, wanted, resources.reward)
        self._counts.update(f"demonstrations_rejected/{one}" for one in made if isinstance(one, Rejected))
        draws = [question.draw for question in questions]
        return {draw: one for draw, one in zip(draws, made, strict=True) if isinstance(one, Demonstration)}

    def metrics(self) -> dict[str, float]:
        """Return the counts of the step, which then begin again."""
        counts, self._counts = self._counts, Counter()
        return {f"method/{name}": float(count) for name, count in counts.items()}


class JoiningMethod(VerifyingMethod):
    """Adds demonstrations to groups."""

    Settings = JoiningSettings
    joins_groups = True

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        return Needs(demonstrations=settings.demonstrations, joined_rows=int(settings.coeff != 0.0))

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        yield from group_row_problems(config)

    def joined(self, group: Group, demonstration: Demonstration, **row: Any) -> Group:
        """Return the group with a demonstration behind its rollouts; `row` is for `demonstration_row`."""
        self._counts.update(demonstrations_joined=1, demonstration_tokens=len(demonstration.response_ids))
        return replace(group, rollouts=(*group.rollouts, demonstration_row(group, demonstration, **row)))

    def coefficients(self, step: int) -> dict[Role, float]:
        return {Role.DEMONSTRATION: self.settings.coeff}

    def metrics(self) -> dict[str, float]:
        return {"method/demonstrations_joined": 0.0, "method/demonstration_tokens": 0.0, **super().metrics()}


class InPlaceOfARollout(JoiningMethod):
    """The demonstration of every question takes the place of one of its rollouts, and counts in the group's mean.

    A question without a verified demonstration has all its rollouts.
    """

    def __init__(self, settings: Any, resources: Resources):
        super().__init__(settings, resources)
        self._joining: dict[str, Demonstration] = {}  # of the step, by draw

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        needs = super().needs(settings)
        return replace(needs, in_place=needs.joined_rows > 0)

    def prompts(self, questions: Sequence[Question], step: int) -> list[Prompt]:
        bare = super().prompts(questions, step)
        if self.settings.coeff == 0.0:
            return bare
        demonstrations = self.verified(questions, step)
        self._joining |= demonstrations  # verl may draw a step's questions in several calls
        fewer = self.resources.rollouts - 1
        return [replace(p, samples=fewer) if p.question.draw in demonstrations else p for p in bare]

    def edit(self, groups: Sequence[Group], step: int) -> list[Group]:
        joining, self._joining = self._joining, {}
        demonstrations = [joining.get(group.question.draw) for group in groups]
        return [
            group if demonstration is None else self.joined(group, demonstration)
            for group, demonstration in zip(groups, demonstrations, strict=True)
        ]


class AfterRollouts(JoiningMethod):
    """Demonstrations of questions that a gate chooses by their graded groups, which they change.

    A question without a verified demonstration keeps its rollouts.
    """

    def __init__(self, settings: Any, resources: Resources):
        super().__init__(settings, resources)
        self._none_left = False  # whether every rollout of the step was dropped

    def chosen(self, groups: Sequence[Group], step: int) -> list[Group]:
        """Return the groups whose questions get their demonstrations, in their order."""
        raise NotImplementedError

    def placed(self, group: Group, demonstration: Demonstration) -> Group:
        """Return a chosen group with its demonstration."""
        raise NotImplementedError

    def edit(self, groups: Sequence[Group], step: int) -> list[Group]:
        chosen = self.chosen(groups, step) if self.settings.coeff else []
        self._counts["gate_opened"] = len(chosen)
        demonstrations = self.verified([group.question for group in chosen], step)
        found = [demonstrations.get(group.question.draw) for group in groups]
        edited = [
            group if demonstration is None else self.placed(group, demonstration)
            for group, demonstration in zip(groups, found, strict=True)
        ]
        # verl's metrics and normalizers need a rollout: where none is left, one question's stay and count for nothing.
        self._none_left = all(rollout.role is not Role.OWN for group in edited for rollout in group.rollouts)
        if self._none_left:
            edited[0] = replace(edited[0], rollouts=(*groups[0].rollouts, *edited[0].rollouts))
        return edited

    def coefficients(self, step: int) -> dict[Role, float]:
        return super().coefficients(step) | ({Role.OWN: 0.0} if self._none_left else {})
