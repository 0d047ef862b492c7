"""From a solution text to a tokenized demonstration, or to the reason why it is not one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ..data.fields import target_text
from ..rewards import Grade, GradeOutcome, grade_many
from ..settings import DemonstrationSettings, Overlong
from ..types import Question
from .buffer import Demonstration


class Rejected(StrEnum):
    """Why a question got no demonstration."""

    MISSING = "missing"  # its row has no solution
    WRONG = "wrong"  # the solution's final answer is not the ground truth
    UNVERIFIABLE = "unverifiable"  # the ground truth cannot be parsed, or grading took too long
    OVERLONG = "overlong"  # more tokens than allowed; never cut, a cut proof teaches to stop mid-proof


class OverlongDemonstration(ValueError):
    """A demonstration is too long and `method.demonstrations.overlong` says that this is an error."""


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    eos_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Solution:
    """A text that may become the demonstration of a question."""

    question: Question
    text: Any  # as the data set or a teacher gives it: chat list, text or None
    step: int  # the training step that asked for it
    overlong: Overlong = Overlong.DROP


def make_demonstrations(
    solutions: Sequence[Solution],
    tokenizer: Tokenizer,
    encode_prompt: Callable[[Question], tuple[int, ...]],
    settings: DemonstrationSettings,
) -> list[Demonstration | Rejected]:
    """Verify all `solutions` in one batch through the judge's pool, and tokenize those that hold.

    Args:
        encode_prompt: a question's token ids in the model's chat template, up to where the answer begins.

    Raises:
        OverlongDemonstration: a verified one is too long and its `overlong` is `error`.
    """
    texts = [target_text(solution.text) for solution in solutions]
    graded = [i for i, text in enumerate(texts) if text is not None and settings.verify]
    grades = grade_many([(texts[i], solutions[i].question.ground_truth) for i in graded])
    rejected = {i: reason for i, grade in zip(graded, grades, strict=True) if (reason := _reason(grade)) is not None}
    rejected |= {i: Rejected.MISSING for i, text in enumerate(texts) if text is None}
    return [
        rejected[i] if i in rejected else _tokenize(solution, texts[i], tokenizer, encode_prompt, settings)
        for i, solution in enumerate(solutions)
    ]


def _reason(grade: Grade) -> Rejected | None:
    if grade.outcome in (GradeOutcome.GROUND_TRUTH_UNPARSABLE, GradeOutcome.TIMED_OUT):
        return Rejected.UNVERIFIABLE
    return None if grade.outcome is GradeOutcome.CORRECT else Rejected.WRONG


def _tokenize(
    solution: Solution,
    text: str,
    tokenizer: Tokenizer,
    encode_prompt: Callable[[Question], tuple[int, ...]],
    settings: DemonstrationSettings,
) -> Demonstration | Rejected:
    response_ids = (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id)
    if len(response_ids) <= settings.max_tokens:
        question = solution.question
        return Demonstration(question.id, encode_prompt(question), response_ids, solution.step)
    if solution.overlong is Overlong.ERROR:
        raise OverlongDemonstration(
            f"the demonstration of question {solution.question.id} has {len(response_ids)} tokens, more than "
            f"method.demonstrations.max_tokens={settings.max_tokens}; raise the limit or set "
            "method.demonstrations.overlong=drop"
        )
    return Rejected.OVERLONG
