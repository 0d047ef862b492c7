"""The types that flow through a training step: questions -> prompts -> graded rollouts -> groups.

A question is a row of the data set, drawn for a step. A method makes a prompt of it. The rollout engine
answers a prompt several times, and the reward function grades each answer: that is a group.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np


class Role(IntEnum):
    """Who wrote a token of a response. Losses, metrics and masks go by it, never by a method's name."""

    OWN = 0  # the policy, from the bare question
    DEMONSTRATION = 1  # the author of a verified solution
    HINT = 2  # that author, at the head of an answer which the policy continues
    CONTINUATION = 3  # the policy, behind a hint, in its own answer or in the question
    REPLAY = 4  # the policy of an earlier step


@dataclass(frozen=True, slots=True)
class Question:
    """One draw of a row of the data set."""

    id: str  # identity of the question over epochs, restarts and methods; rows that repeat it share it
    draw: str  # name of this draw, unique in the run: verl's uid of the group
    messages: tuple[dict[str, str], ...]  # the chat that asks it
    ground_truth: Any
    target: Any = None  # a solution as the data set has it: chat list, text or None
    hints: tuple[str, ...] = ()  # as the data set has them, from the one that says least to the one that says most
    data_source: str = ""
    extra_info: dict[str, Any] = field(default_factory=dict)


def question_id(messages: Sequence[dict[str, Any]], ground_truth: Any) -> str:
    """Identity of a question, from its row: 24 hexadecimal digits of a hash of the chat and the ground truth."""
    text = json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=False, default=str)
    digest = hashlib.blake2b(f"{text}\n{ground_truth!r}".encode(errors="surrogatepass"), digest_size=12)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy is asked: a question, perhaps with guidance."""

    question: Question
    messages: tuple[dict[str, str], ...]  # the chat that is sampled from; a hint in the user turn changes it
    forced: tuple[int, ...] = ()  # tokens that every answer begins with: the head of a demonstration
    samples: int | None = None  # answers to draw; None: actor_rollout_ref.rollout.n
    attempt: int = 0  # of the draw in this step; a retry's answers are sampled with other seeds
    copy: int = 0  # its place among equal prompts of the step, which are sampled with other seeds; the manager sets it
    guided: int | None = None  # answers that begin with `forced`, the last of the group; None: all
    own_mean: bool = False  # those answers are compared with each other, not with the rest of the group
    trained_under: tuple[dict[str, str], ...] | None = None  # the chat that the loss conditions on; None: `messages`
    aside: bool = False  # asked for the method alone: its group takes no other's place, and RL doesn't train on it

    @classmethod
    def bare(cls, question: Question) -> "Prompt":
        """The question as it is."""
        return cls(question, question.messages)

    def parts(self, samples: int) -> list[tuple[tuple[int, ...], int]]:
        """Return heads of answers, and how many answers begin with each; `samples` where the prompt says no number."""
        samples = self.samples or samples
        guided = min(samples if self.guided is None else self.guided, samples) if self.forced else 0
        return [(head, count) for head, count in (((), samples - guided), (self.forced, guided)) if count]


@dataclass(frozen=True, slots=True)
class GradedRollout:
    """One response of the policy and what it earned.

    Token ids and log-probabilities are there where a rollout is made and stored. A group that the trainer reads back
    from TransferQueue has neither: they stay in the queue, under `key`.
    """

    key: str  # its row in TransferQueue, verl's {uid}_{session}_{index}
    reward: float  # what the policy update sees
    accuracy: float  # 1 if the answer is right, 0 if it is wrong, whatever the reward
    info: dict[str, Any]  # what the reward function returned: `score`, `acc`, `outcome`, ...
    tokens: int  # of the response, with the end-of-sequence token if it was sampled
    token_ids: np.ndarray | None = None  # [tokens] int64
    log_probs: np.ndarray | None = None  # [tokens] float32, under the distribution that sampled them
    truncated: bool = False  # ended by the length limit
    forced: int = 0  # tokens of the head that the policy was given
    role: Role = Role.OWN  # of all its tokens, where a method has added it to the group
    prompt_ids: tuple[int, ...] = ()  # of a row that a method has added
    counts_in_mean: bool = True  # of the group; every row is compared with it, counted or not


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and its graded rollouts: none before they are made, and in methods that make none."""

    prompt: Prompt
    rollouts: tuple[GradedRollout, ...] = ()

    @property
    def question(self) -> Question:
        """The question that was asked."""
        return self.prompt.question

    @property
    def accuracy(self) -> float:
        """acc(q): the mean accuracy of the rollouts, in [0, 1] (arXiv 2506.07527, section 3).

        It is there for a group as graded: what a method adds is not the policy's.
        """
        return sum(rollout.accuracy for rollout in self.rollouts) / len(self.rollouts)
