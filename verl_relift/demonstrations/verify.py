"""From a solution text to a tokenized demonstration, or to the reason why it is not one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ..data.chat import answer_start, opens_thought, text_ids, without_repetition
from ..data.fields import target_text
from ..rewards.function import Answer, RewardFunction, Score
from ..settings import DemonstrationSettings, Overlong
from ..types import Question
from .buffer import Demonstration


class Rejected(StrEnum):
    """Why a question got no demonstration."""

    MISSING = "missing"  # its row has no solution
    WRONG = "wrong"  # the solution's final answer is not the ground truth
    UNVERIFIABLE = "unverifiable"  # the ground truth cannot be parsed, or grading took too long
    UNSOLVED = "unsolved"  # the policy was shown the solution, and no rollout was right
    OVERLONG = "overlong"  # more tokens than allowed; never cut, a cut proof teaches to stop mid-proof


class OverlongDemonstration(ValueError):
    """A demonstration is too long and `method.demonstrations.overlong` says that this is an error."""


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    eos_token_id: int
    added_tokens_decoder: dict[int, Any]

    def encode(self, text: str, **options: bool) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class Solution:
    """A text that may become the demonstration of a question."""

    question: Question
    text: Any  # as the data set or a teacher gives it: chat list, text or None
    step: int  # the training step that asked for it
    overlong: Overlong = Overlong.DROP


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A solution as the answer to its prompt."""

    solution: Solution
    prompt_ids: tuple[int, ...]
    text: str  # without what the prompt has written of it already
    in_thought: bool  # whether it begins inside a thought that the prompt has opened


def make_demonstrations(
    solutions: Sequence[Solution],
    tokenizer: Tokenizer,
    encode_prompt: Callable[[Question], tuple[int, ...]],
    settings: DemonstrationSettings,
    reward: RewardFunction,
) -> list[Demonstration | Rejected]:
    """Verify all `solutions` together with the reward function of rollouts, and tokenize those that hold.

    Args:
        encode_prompt: a question's token ids in the model's chat template, up to where the answer begins.

    Raises:
        OverlongDemonstration: a verified one is too long and its `overlong` is `error`.
    """
    made: list[_Candidate | Demonstration | Rejected] = [
        _candidate(solution, tokenizer, encode_prompt) or Rejected.MISSING for solution in solutions
    ]
    there = [i for i, candidate in enumerate(made) if isinstance(candidate, _Candidate)]
    scores = reward.score_all([_answer(made[i]) for i in there]) if settings.verify and there else []
    reasons = {i: _reason(score) for i, score in zip(there, scores, strict=False)}
    for i in there:
        made[i] = reasons.get(i) or _tokenize(made[i], tokenizer, settings)
    return made


def _candidate(
    solution: Solution, tokenizer: Tokenizer, encode_prompt: Callable[[Question], tuple[int, ...]]
) -> _Candidate | None:
    text = target_text(solution.text)
    if text is None:
        return None
    prompt_ids = encode_prompt(solution.question)
    start = answer_start(tokenizer, prompt_ids, solution.question.messages)
    return _Candidate(solution, prompt_ids, without_repetition(text, start), opens_thought(start))


def _answer(candidate: _Candidate) -> Answer:
    question = candidate.solution.question
    return Answer(
        candidate.text, question.ground_truth, question.data_source, question.extra_info, candidate.in_thought
    )


def _reason(score: Score) -> Rejected | None:
    if score.unverifiable:
        return Rejected.UNVERIFIABLE
    return None if score.right else Rejected.WRONG


def _tokenize(candidate: _Candidate, tokenizer: Tokenizer, settings: DemonstrationSettings) -> Demonstration | Rejected:
    solution = candidate.solution
    response_ids = (*text_ids(tokenizer, candidate.text), tokenizer.eos_token_id)
    if len(response_ids) <= settings.max_tokens:
        return Demonstration(solution.question.id, candidate.prompt_ids, response_ids, solution.step)
    if solution.overlong is Overlong.ERROR:
        raise OverlongDemonstration(
            f"the demonstration of question {solution.question.id} has {len(response_ids)} tokens, more than "
            f"method.demonstrations.max_tokens={settings.max_tokens}; raise the limit or set "
            "method.demonstrations.overlong=drop"
        )
    return Rejected.OVERLONG
