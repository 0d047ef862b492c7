"""The teacher's questions and answers."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self


class Failure(StrEnum):
    """Why the teacher gave no demonstration for a question."""

    WRONG = "wrong"  # no sample's final answer equals the ground truth
    UNVERIFIABLE = "unverifiable"  # the ground truth cannot be parsed, or grading took too long
    TRUNCATED = "truncated"  # samples reach method.teacher.max_tokens; a truncated solution is never used
    UNREACHABLE = "unreachable"  # no connection, no answer in time, overload or a server error, after all retries
    MALFORMED = "malformed"  # replies are not chat completions, after all retries
    REFUSED = "refused"  # the server rejects the request: bad request, unknown model, wrong key
    BUDGET = "budget"  # the rest of the budget cannot pay for another sample

    @property
    def final(self) -> bool:
        """Whether asking again would end the same way, because the samples are in the cache."""
        return self in (Failure.WRONG, Failure.UNVERIFIABLE, Failure.TRUNCATED)


@dataclass(frozen=True)
class TeacherQuestion:
    """A question for the teacher.

    Attributes:
        key: its stable identity.
        messages: the chat, each message with `role` and `content`.
        ground_truth: what the reward function accepts, in JSON types.
        prompt_ids: token ids of the prompt; the teacher only passes them on to the answer.
        step: the training step in which it is asked.
        data_source: of the question's row, for the reward function.
        extra_info: of the question's row, for the reward function, in JSON types.
        answer_start: what the policy's prompt has written of the answer; `verl_relift.data.chat.answer_start`.
    """

    key: str
    messages: tuple[dict[str, str], ...]
    ground_truth: Any
    prompt_ids: tuple[int, ...]
    step: int
    data_source: str = ""
    extra_info: dict[str, Any] = field(default_factory=dict)
    answer_start: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the question as JSON types."""
        return {
            "key": self.key,
            "messages": [dict(message) for message in self.messages],
            "ground_truth": self.ground_truth,
            "prompt_ids": list(self.prompt_ids),
            "step": self.step,
            "data_source": self.data_source,
            "extra_info": self.extra_info,
            "answer_start": self.answer_start,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the question that `to_json` described."""
        messages = tuple(dict(message) for message in value["messages"])
        return cls(
            value["key"],
            messages,
            value["ground_truth"],
            tuple(value["prompt_ids"]),
            value["step"],
            value.get("data_source", ""),
            value.get("extra_info", {}),
            value.get("answer_start", ""),
        )


@dataclass(frozen=True)
class TeacherAnswer:
    """The outcome of a question. Exactly one of `text` and `failure` is set.

    Attributes:
        question: the question as it was asked.
        text: the first sample whose final answer equals the ground truth, including its `<think>` part.
        failure: why there is no such sample.
    """

    question: TeacherQuestion
    text: str | None
    failure: Failure | None
