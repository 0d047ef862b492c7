"""The result of grading a response: `GradeOutcome` names it, and `Grade` carries it with the extracted answer."""

from dataclasses import dataclass
from enum import StrEnum


class GradeOutcome(StrEnum):
    """The ways in which grading can end."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    BAD_FORMAT = "bad_format"
    TIMED_OUT = "timed_out"
    GROUND_TRUTH_UNPARSABLE = "ground_truth_unparsable"

    @property
    def sentence(self) -> str:
        """A sentence that explains the outcome in logs and reports."""
        return _SENTENCES[self]


_SENTENCES = {
    GradeOutcome.CORRECT: "The final answer equals the ground truth.",
    GradeOutcome.WRONG: "The final answer does not equal the ground truth.",
    GradeOutcome.NO_ANSWER: "The response has no final answer in the part that is read.",
    GradeOutcome.BAD_FORMAT: "The response lacks the format that the rules require.",
    GradeOutcome.TIMED_OUT: "The judge was stopped at its time or memory limit before it could decide.",
    GradeOutcome.GROUND_TRUTH_UNPARSABLE: "The ground truth is empty or cannot be read as mathematics.",
}


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on one response.

    Attributes:
        outcome: how the grading ended.
        extracted: the final answer as the response spells it; None if none was found.
        detail: the reason where the outcome alone does not give it; empty otherwise.
    """

    outcome: GradeOutcome
    extracted: str | None = None
    detail: str = ""

    @property
    def correct(self) -> bool:
        """Whether the final answer equals the ground truth."""
        return self.outcome is GradeOutcome.CORRECT
