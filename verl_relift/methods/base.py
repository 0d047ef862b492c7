"""The seam between a training step and a method of mixing demonstrations into it.

    questions -> prompts -> rollouts -> graded groups -> retry -> edit -> one policy update, perhaps with spliced rows
              -> supervised updates of their own -> weights to vLLM

A method says something at these places and nowhere else. The trainer knows no method by name, and a method knows
neither Ray nor Megatron nor vLLM: everything here is plain Python on the types of `verl_relift.types`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from ..data.chat import PromptTooLong
from ..demonstrations.verify import Tokenizer
from ..rewards.function import RewardFunction
from ..run.budget import By
from ..settings import DemonstrationSettings
from ..types import Group, Prompt, Question, Role
from .placement import SplicedRows, SupervisedUpdate
from .weight import Term, Weight


@dataclass(frozen=True)
class NoSettings:
    """`method` of a method that has nothing to set."""


@dataclass(frozen=True)
class Needs:
    """What a method asks of the data and of the machine; checks and `plan` read it before a GPU is taken."""

    rollouts: bool = True  # False: nothing is sampled except for validation
    demonstrations: DemonstrationSettings | None = None  # None: the data set needs no solutions
    supervised_rows: int = 0  # the largest number of demonstrations in one update
    own_step: bool = False  # an optimizer step of its own; otherwise they join the RL update
    separate_moments: bool = False  # AdamW moments of its own
    token_budget: int | None = None  # tokens per micro-batch of an own step; None: as the RL update
    failed_groups: bool = False  # looks at questions that every rollout fails
    joined_rows: int = 0  # demonstrations that are rows of one question's group
    in_place: bool = False  # such a row takes the place of a rollout, which is not sampled
    updates: int = 1  # the most supervised updates in a step that has enough demonstrations
    epochs: int = 1  # passes of a supervised update over its demonstrations
    exact_rows: bool = False  # an update has exactly supervised_rows, which the data-parallel size must divide
    retries: int = 0  # the most times that a question is asked again in a step
    hints_column: str | None = None  # of the data set: a list of texts; None: it needs none


@dataclass(frozen=True)
class Resources:
    """What the trainer lends to a method."""

    tokenizer: Tokenizer
    encode_prompt: Callable[[Question], tuple[int, ...]]  # token ids in the chat template, up to the answer
    reward: RewardFunction  # scores rollouts, and verifies demonstrations
    seed: int  # data.seed
    data_parallel_size: int
    folder: Path  # of the run
    available: int = 0  # rows of the training set with a solution
    training_set: Sequence[Question] = ()  # every row, read when it is asked for
    rollouts: int = 8  # answers to a question: actor_rollout_ref.rollout.n

    def rng(self, purpose: str, step: int, draw: int = 0) -> Random:
        """Return a generator for one purpose of one step, so that none has to be in a checkpoint."""
        return Random(f"{self.seed}/{purpose}/{step}/{draw}")

    def fits(self, question: Question, messages: Sequence[dict[str, str]]) -> bool:
        """Whether a chat for `question` has at most `data.max_prompt_length` tokens."""
        try:
            self.encode_prompt(replace(question, messages=tuple(messages)))
        except PromptTooLong:
            return False
        return True


@dataclass(frozen=True)
class Stage:
    """One run of a method that consists of several, each from the weights of the one before."""

    folder: str  # in the folder of the whole
    method: str  # the stage's own
    overrides: Sequence[str] = ()  # key=value, for this stage alone
    match: str | None = None  # folder of a run of which it spends the budget; None: it makes the steps that it is told
    by: By = By.DEMONSTRATIONS  # what is counted


@dataclass(frozen=True)
class Supervised:
    """What a method trains on besides rollouts in this step.

    `spliced` joins the RL update. `updates` is called after the RL update and returns the optimizer steps to make
    then, in order.
    """

    spliced: SplicedRows | None = None
    updates: Callable[[], Sequence[SupervisedUpdate]] = tuple


class Method:
    """A method that changes nothing: the base of all, and verl's own algorithm as it is."""

    Settings: ClassVar[type] = NoSettings
    # Of a token, by role. Of what the policy wrote it multiplies the advantage, of everything else -log p; where a role
    # is not in it, the one is trained on as verl does, and the other not at all.
    weights: ClassVar[Mapping[Role, Weight]] = {}
    # Whether `edit` may add rows to groups, such as a demonstration.
    joins_groups: ClassVar[bool] = False
    # Whether a token's loss depends on its row's reward.
    reads_rewards: ClassVar[bool] = False

    def __init__(self, settings: Any, resources: Resources):
        """
        Args:
            settings: an instance of `Settings`.
        """
        self.settings = settings
        self.resources = resources

    # ---- before a run ----------------------------------------------------------------------------------------------

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        """Return what the method asks of data and machine with these settings."""
        return Needs()

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        """Yield a line for everything in the configuration that can't work with this method."""
        yield from ()

    @classmethod
    def stages(cls, settings: Any) -> Sequence[Stage]:
        """Return the runs that the method consists of. By default it is one run, of its own, and this is empty."""
        return ()

    # ---- a step ----------------------------------------------------------------------------------------------------

    def prompts(self, questions: Sequence[Question], step: int) -> list[Prompt]:
        """Return what the policy is asked. By default each question as it is."""
        return [Prompt.bare(question) for question in questions]

    def retry(self, groups: Sequence[Group], step: int, attempt: int) -> list[Prompt]:
        """Return prompts to sample in the same step: their groups replace those of the same draw. By default none.

        Groups of prompts that are set aside replace none. They are in the next call, behind the others and with token
        ids, and gone after it.

        Args:
            groups: graded so far, one per draw, and what was set aside.
            attempt: 1 before the first retry, and so on until the method returns none.
        """
        return []

    def edit(self, groups: Sequence[Group], step: int) -> list[Group]:
        """Return the groups with the rollouts that the policy update trains on. By default all of them.

        A method with `joins_groups` may add rows, which `placement.demonstration_row` makes. They are written as
        rollouts are, and verl's policy loss does not train on them: `terms` or `weights` do. Any rollout may come back
        with `counts_in_mean=False`.
        """
        return list(groups)

    def supervised(self, groups: Sequence[Group], step: int) -> Supervised:
        """Return what is trained on besides rollouts. By default nothing.

        Args:
            groups: as graded, with those that `algorithm.filter_groups` has kept out of the RL update; without
                rollouts where the method needs none.
        """
        return Supervised()

    def coefficients(self, step: int) -> dict[Role, float]:
        """Return the coefficient of each role's term in the loss; 1 where a role is not in it.

        That of `Role.OWN` multiplies verl's whole policy loss.
        """
        return {}

    # ---- the loss, in the Megatron workers -------------------------------------------------------------------------

    @classmethod
    def token_weights(cls, settings: Any) -> Mapping[Role, Weight]:
        """Return the weights by role, where they depend on settings. By default `weights`."""
        return cls.weights

    @classmethod
    def terms(cls, settings: Any) -> Sequence[Term]:
        """Return terms of the policy loss that are not verl's, nor -w log p with a weight. By default none."""
        return ()

    # ---- a run -----------------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the step that has been made, with their full names."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, as plain JSON types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""

    def close(self) -> None:
        """End what runs beside the trainer."""

    @classmethod
    def retries(cls) -> bool:
        """Whether groups of a retry may take the places of others."""
        return cls.retry is not Method.retry

    @classmethod
    def asks_again(cls, settings: Any) -> bool:
        """Whether `retry` may return prompts with these settings."""
        return cls.retries()

    @classmethod
    def reads_groups(cls) -> bool:
        """Whether the method looks at the step's graded groups, which the trainer then reads from TransferQueue."""
        return any(getattr(cls, hook) is not getattr(Method, hook) for hook in ("edit", "supervised"))

    @classmethod
    def weighs_tokens(cls, settings: Any) -> bool:
        """Whether a loss is more than verl's own on what the policy wrote, or weighs a demonstration's tokens."""
        return bool(cls.token_weights(settings) or cls.terms(settings) or cls.coefficients is not Method.coefficients)

    @classmethod
    def guides_generation(cls) -> bool:
        """Whether the method changes what is sampled, which verl's agent loop does not support."""
        return cls.prompts is not Method.prompts or cls.retries()

    @classmethod
    def writes_roles(cls) -> bool:
        """Whether a step's rows say who wrote each token."""
        return cls.guides_generation() or cls.joins_groups

    @classmethod
    def changes_rows(cls) -> bool:
        """Whether the policy update may see more or fewer rows than questions times rollouts."""
        return cls.writes_roles() or cls.edit is not Method.edit
