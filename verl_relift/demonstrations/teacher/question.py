"""What goes to the teacher and what comes back."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Failure(StrEnum):
    """Why the teacher gave no demonstration for a question."""

    WRONG = "wrong"  # no sample's final answer is the ground truth
    UNVERIFIABLE = "unverifiable"  # the ground truth cannot be parsed, or grading took too long
    TRUNCATED = "truncated"  # samples reach relift.teacher.max_tokens; a cut solution is never used
    UNREACHABLE = "unreachable"  # no connection, no answer in time, overload or a server's error, after all retries
    MALFORMED = "malformed"  # replies are no chat completions, after all retries
    REFUSED = "refused"  # the server says no: bad request, unknown model, wrong key
    BUDGET = "budget"  # what is left of the budget cannot pay for another sample

    @property
    def final(self) -> bool:
        """Whether asking again would end the same way, the samples being in the cache."""
        return self in (Failure.WRONG, Failure.UNVERIFIABLE, Failure.TRUNCATED)


@dataclass(frozen=True)
class TeacherQuestion:
    """A question for the teacher.

    key: its stable identity. messages: the chat, each with ``role`` and ``content``. ground_truth: as
    ``verl_relift.rewards.grade`` takes it, of JSON's types. prompt_ids: not used here, carried through to the answer.
    step: the training step at which it is asked.
    """

    key: str
    messages: tuple[dict[str, str], ...]
    ground_truth: Any
    prompt_ids: tuple[int, ...]
    step: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "key": self.key,
            "messages": [dict(message) for message in self.messages],
            "ground_truth": self.ground_truth,
            "prompt_ids": list(self.prompt_ids),
            "step": self.step,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TeacherQuestion":
        """Undo :meth:`to_json`."""
        messages = tuple(dict(message) for message in value["messages"])
        return cls(value["key"], messages, value["ground_truth"], tuple(value["prompt_ids"]), value["step"])


@dataclass(frozen=True)
class TeacherAnswer:
    """What became of a question. Exactly one of ``text`` and ``failure`` is set.

    text: the first sample whose final answer is the ground truth, ``<think>`` included where the server reports the
    reasoning apart.
    """

    question: TeacherQuestion
    text: str | None
    failure: Failure | None
