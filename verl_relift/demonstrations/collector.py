"""The life of a demonstration: chosen -> obtained -> verified -> waiting -> taken; rejected or expired on the way."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from ..data.chat import answer_start
from ..rewards.function import RewardFunction
from ..settings import DemonstrationSettings, Source
from ..types import Question
from .buffer import Demonstration, DemonstrationBuffer
from .verify import Rejected, Solution, Tokenizer, make_demonstrations

if TYPE_CHECKING:  # a teacher's client takes seconds to import, and most runs have none
    from .teacher import Teacher, TeacherAnswer, TeacherQuestion


@dataclass(frozen=True, slots=True)
class _Collection:
    """What one call of `Collector.collect` is to do once its solutions are verified."""

    chosen: Sequence[Question]
    solved: Sequence[Question]
    step: int
    answers: "list[TeacherAnswer]"
    verified: Future[list[Demonstration | Rejected]]  # of the answers, then of the data set's solutions
    questions: list[str]  # ids of those whose solutions are in it
    traces: Mapping[str, Sequence[Demonstration]]  # right answers of the policy that saw the solution, by id


class Collector:
    """Gets a verified demonstration of every chosen question into the buffer, and hands out those that are due.

    `collect` starts verification on a thread and returns at once; `settle` waits for it. Between the two the
    trainer makes its RL update.
    """

    def __init__(
        self,
        settings: DemonstrationSettings,
        buffer: DemonstrationBuffer,
        tokenizer: Tokenizer,
        encode_prompt: Callable[[Question], tuple[int, ...]],
        reward: RewardFunction,
        teacher: "Teacher | None" = None,
        available: int = 0,
    ):
        """
        Args:
            encode_prompt: a question's token ids in the model's chat template, up to where the answer begins.
            reward: verifies solutions, as it scores rollouts.
            teacher: asked where `settings.source` says so.
            available: rows of the training set with a solution, for the fraction in the metrics.
        """
        self._settings = settings
        self.buffer = buffer
        self._tokenizer = tokenizer
        self._encode_prompt = encode_prompt
        self._reward = reward
        self._teacher = teacher
        self._available = available
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="demonstrations")
        self._collection: _Collection | None = None
        self.accepted = 0
        self.rejected: Counter[Rejected] = Counter()
        self.updates = 0  # batches taken
        self.taken = 0  # demonstrations in those batches, each time counted
        self.tokens = 0  # in those batches, prompts included
        self.used: set[str] = set()  # questions whose demonstration was taken

    def collect(
        self,
        chosen: Sequence[Question],
        solved: Sequence[Question],
        step: int,
        traces: Mapping[str, Sequence[Demonstration]] | None = None,
    ) -> None:
        """Start getting a demonstration of each chosen question.

        Args:
            chosen: questions in the order in which their demonstrations are to wait.
            solved: questions that need none any more; the buffer's settings say whether one that waits goes.
            traces: right answers by question, of those that the policy was asked with their solutions.
        """
        self.settle()
        answers = self._teacher.collect() if self._teacher is not None else []
        answers = [answer for answer in answers if answer.text is not None]
        solutions = [Solution(_question_of(a.question), a.text, a.question.step) for a in answers]
        questions = []
        if self._settings.source in (Source.DATASET, Source.DATASET_THEN_TEACHER):
            new = {question.id: question for question in chosen if question.id not in self.buffer}
            questions = list(new)
            solutions += [Solution(q, q.target, step, self._settings.overlong) for q in new.values()]
        verified = self._thread.submit(self._verify, solutions)
        self._collection = _Collection(chosen, solved, step, answers, verified, questions, traces or {})

    def settle(self) -> None:
        """Finish what `collect` has started.

        Raises:
            OverlongDemonstration: one is too long and `method.demonstrations.overlong` is `error`.
        """
        collection, self._collection = self._collection, None
        if collection is None:
            return
        results = collection.verified.result()
        for answer, result in zip(collection.answers, results, strict=False):
            if answer.question.key not in self.buffer:
                self._offer(result)
        verified = dict(zip(collection.questions, results[len(collection.answers) :], strict=True))
        for question in collection.solved:
            self.buffer.drop_solved(question.id)
        for question in collection.chosen:
            if question.id in self.buffer:
                self.buffer.renew(question.id, collection.step)
            elif question.id in collection.traces:
                self._offer_traces(question, collection.traces[question.id])
            elif self._settings.source is not Source.PRIVILEGED:
                self._obtain(question, collection.step, verified.get(question.id))
        self.buffer.expire(collection.step)

    def take(self, count: int, rng: Random) -> list[Demonstration]:
        """Remove `count` demonstrations from the buffer for one supervised update, and count them as used."""
        demonstrations = self.buffer.take(count, rng)
        self.updates += 1
        self.taken += len(demonstrations)
        self.tokens += sum(len(d.prompt_ids) + len(d.response_ids) for d in demonstrations)
        self.used.update(demonstration.question for demonstration in demonstrations)
        return demonstrations

    def metrics(self) -> dict[str, float]:
        """Totals of the run, as `relift/*`."""
        self.settle()
        metrics: dict[str, float] = {
            "relift/buffer_size": len(self.buffer),
            "relift/sft_updates": self.updates,
            "relift/sft_demonstrations": self.taken,
            "relift/sft_tokens": self.tokens,
            "relift/demonstrations_accepted": self.accepted,
            "relift/demonstrations_used": len(self.used),
            "relift/demonstration_fraction": len(self.used) / self._available if self._available else 0.0,
        }
        metrics |= {f"relift/demonstrations_rejected/{reason}": n for reason, n in self.rejected.items()}
        metrics |= {f"relift/demonstrations_evicted/{reason}": n for reason, n in self.buffer.evicted.items()}
        if self._teacher is not None:
            metrics |= {f"relift/teacher/{name}": value for name, value in self._teacher.metrics().items()}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as plain JSON types."""
        self.settle()
        return {
            "buffer": self.buffer.state_dict(),
            "sft_updates": self.updates,
            "sft_demonstrations": self.taken,
            "sft_tokens": self.tokens,
            "accepted": self.accepted,
            "rejected": {reason.value: count for reason, count in self.rejected.items()},
            "used": sorted(self.used),
            "teacher": None if self._teacher is None else self._teacher.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.buffer.load_state_dict(state["buffer"])
        self.updates = state["sft_updates"]
        self.taken = state["sft_demonstrations"]
        self.tokens = state["sft_tokens"]
        self.accepted = state["accepted"]
        self.rejected = Counter({Rejected(reason): count for reason, count in state["rejected"].items()})
        self.used = set(state["used"])
        if self._teacher is not None and state["teacher"] is not None:
            self._teacher.load_state_dict(state["teacher"])

    def close(self) -> None:
        """End what runs beside the trainer."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._teacher is not None:
            self._teacher.close()

    def _verify(self, solutions: list[Solution]) -> list[Demonstration | Rejected]:
        return make_demonstrations(solutions, self._tokenizer, self._encode_prompt, self._settings, self._reward)

    def _obtain(self, question: Question, step: int, result: Demonstration | Rejected | None) -> None:
        """Put the question's own solution into the buffer, or ask the teacher for one."""
        source = self._settings.source
        if source is not Source.TEACHER:
            if result is None:  # it waited when verification began, and went since
                solution = Solution(question, question.target, step, self._settings.overlong)
                (result,) = self._thread.submit(self._verify, [solution]).result()
            if self._offer(result) or source is Source.DATASET:
                return
        from .teacher import TeacherQuestion

        messages = tuple({"role": m["role"], "content": m["content"]} for m in question.messages)
        prompt_ids = self._encode_prompt(question)
        self._teacher.ask(
            TeacherQuestion(
                question.id,
                messages,
                question.ground_truth,
                prompt_ids,
                step,
                question.data_source,
                json.loads(json.dumps(question.extra_info, default=str)),  # a checkpoint holds it
                answer_start(self._tokenizer, prompt_ids, messages),
            )
        )

    def _offer_traces(self, question: Question, traces: Sequence[Demonstration]) -> None:
        """Put the policy's answers into the buffer; the second and further ones under names of their own."""
        if not traces:
            self._offer(Rejected.UNSOLVED)
        for place, trace in enumerate(traces):
            name = f"{question.id}/{place}" if place else question.id
            if name not in self.buffer:
                self._offer(replace(trace, question=name))

    def _offer(self, result: Demonstration | Rejected) -> bool:
        if isinstance(result, Rejected):
            self.rejected[result] += 1
            return False
        self.accepted += 1
        self.buffer.add(result)
        return True


def _question_of(asked: "TeacherQuestion") -> Question:
    return Question(
        asked.key,
        asked.key,
        asked.messages,
        asked.ground_truth,
        data_source=asked.data_source,
        extra_info=asked.extra_info,
    )
