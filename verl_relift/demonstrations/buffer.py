"""Verified demonstrations that wait for the supervised update."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from itertools import islice
from random import Random
from typing import Any

from ..settings import BufferOrder, BufferSettings


class Evicted(StrEnum):
    """Why a demonstration left without being used."""

    CAPACITY = "capacity"  # the buffer was full and it had waited longest
    AGE = "age"  # its question failed too many steps ago
    SOLVED = "solved"  # its question was solved while it waited


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One question with a verified solution, tokenized once, when it enters the buffer."""

    question: str  # stable identity of the question over epochs and restarts
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]  # ends with the end-of-sequence token
    step: int  # the training step that asked for it


_FIELDS = tuple(field.name for field in fields(Demonstration))


class DemonstrationBuffer:
    """One demonstration per question, taken in the order of the settings.

    A question that fails again while it waits keeps its place and its demonstration: its age counts from the last
    failure, its turn from the first.
    """

    def __init__(self, settings: BufferSettings):
        self._settings = settings
        self._waiting: OrderedDict[str, Demonstration] = OrderedDict()  # oldest first
        self.evicted: Counter[Evicted] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, question: str) -> bool:
        return question in self._waiting

    def add(self, demonstration: Demonstration) -> None:
        """Put a demonstration at the end; beyond the capacity the one at the front goes.

        Raises:
            ValueError: its question waits already; see `renew`.
        """
        if demonstration.question in self._waiting:
            raise ValueError(f"question {demonstration.question} is waiting already")
        self._waiting[demonstration.question] = demonstration
        capacity = self._settings.capacity
        if capacity is not None and len(self._waiting) > capacity:
            self._waiting.popitem(last=False)
            self.evicted[Evicted.CAPACITY] += 1

    def renew(self, question: str, step: int) -> None:
        """Note that a waiting question failed again at `step`.

        Raises:
            KeyError: the question does not wait.
        """
        self._waiting[question] = replace(self._waiting[question], step=step)

    def expire(self, step: int) -> None:
        """Evict what last failed more than `max_age_steps` before `step`."""
        max_age = self._settings.max_age_steps
        if max_age is None:
            return
        old = [q for q, demonstration in self._waiting.items() if step - demonstration.step > max_age]
        for question in old:
            del self._waiting[question]
        self.evicted[Evicted.AGE] += len(old)

    def drop_solved(self, question: str) -> None:
        """Evict the demonstration of a question that was solved, if the settings say so and it waits."""
        if self._settings.drop_solved and self._waiting.pop(question, None) is not None:
            self.evicted[Evicted.SOLVED] += 1

    def take(self, count: int, rng: Random) -> list[Demonstration]:
        """Remove and return `count` of the waiting, those whose turn it is.

        Args:
            rng: draws them where the order is random; a caller that seeds it by the step repeats a run exactly.

        Raises:
            ValueError: fewer are waiting; nothing is removed.
        """
        if count > len(self._waiting):
            raise ValueError(f"{count} demonstrations asked for, {len(self._waiting)} waiting")
        match self._settings.order:
            case BufferOrder.FIFO:
                questions = list(islice(self._waiting, count))
            case BufferOrder.LIFO:
                questions = list(islice(reversed(self._waiting), count))
            case BufferOrder.RANDOM:
                questions = rng.sample(list(self._waiting), count)
        return [self._waiting.pop(question) for question in questions]

    def state_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types, for the checkpoint."""
        return {
            # Not asdict: that would copy every token id.
            "waiting": [{name: getattr(d, name) for name in _FIELDS} for d in self._waiting.values()],
            "evicted": {reason.value: count for reason, count in self.evicted.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the content by what `state_dict` returned."""
        self._waiting = OrderedDict()
        for item in state["waiting"]:
            demonstration = Demonstration(
                question=item["question"],
                prompt_ids=tuple(item["prompt_ids"]),
                response_ids=tuple(item["response_ids"]),
                step=item["step"],
            )
            self._waiting[demonstration.question] = demonstration
        self.evicted = Counter({Evicted(reason): count for reason, count in state["evicted"].items()})
