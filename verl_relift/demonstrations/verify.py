"""From a solution text to a tokenised demonstration, or to the reason why it is not one."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ..data.fields import target_text
from ..rewards import GradeOutcome, grade
from ..settings import DemonstrationSettings, Overlong
from .buffer import Demonstration


class Rejected(StrEnum):
    """Why a hardest question got no demonstration."""

    MISSING = "missing"  # its row has no solution
    WRONG = "wrong"  # the solution's final answer is not the ground truth
    UNVERIFIABLE = "unverifiable"  # the ground truth cannot be parsed, or grading took too long
    OVERLONG = "overlong"  # more tokens than allowed; never cut, a cut proof teaches to stop mid-proof


class OverlongDemonstration(ValueError):
    """A demonstration is too long and ``relift.demonstrations.overlong`` says that this is an error."""


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    eos_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True)
class Question:
    """One row of the training set, as far as demonstrations need it."""

    key: str  # stable identity over epochs and restarts
    prompt_ids: tuple[int, ...]
    ground_truth: Any
    target: Any  # a chat list, a string, or None


def make_demonstration(
    question: Question, step: int, tokenizer: Tokenizer, settings: DemonstrationSettings
) -> Demonstration | Rejected:
    """Verify and tokenise the solution that the data set holds for ``question``.

    Raises:
        OverlongDemonstration: it is too long and ``settings.overlong`` is ``error``.
    """
    text = target_text(question.target)
    if text is None:
        return Rejected.MISSING
    if settings.verify:
        outcome = grade(text, question.ground_truth).outcome
        if outcome in (GradeOutcome.GROUND_TRUTH_UNPARSABLE, GradeOutcome.TIMED_OUT):
            return Rejected.UNVERIFIABLE
        if outcome is not GradeOutcome.CORRECT:
            return Rejected.WRONG
    response_ids = (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id)
    if len(response_ids) > settings.max_tokens:
        if settings.overlong is Overlong.ERROR:
            raise OverlongDemonstration(
                f"the demonstration of question {question.key} has {len(response_ids)} tokens, more than "
                f"relift.demonstrations.max_tokens={settings.max_tokens}; raise the limit or set "
                "relift.demonstrations.overlong=drop"
            )
        return Rejected.OVERLONG
    return Demonstration(question.key, question.prompt_ids, response_ids, step)
