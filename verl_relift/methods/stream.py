"""Demonstrations drawn from the training set, apart from the questions of a step."""

from collections.abc import Callable, Iterable, Sequence
from random import Random

from ..demonstrations.buffer import Demonstration
from ..types import Question


class Stream:
    """The training set again and again, in another order each time.

    `position` is all that a checkpoint needs.
    """

    def __init__(self, questions: Sequence[Question], rng: Callable[[int], Random]):
        """
        Args:
            questions: the training set.
            rng: returns a generator for an epoch, always the same.
        """
        self._questions = questions
        self._rng = rng
        self._order: tuple[int, list[int]] | None = None  # epoch, and numbers of questions
        self.position = 0  # questions drawn

    def take(
        self, count: int, demonstrations_of: Callable[[Sequence[Question]], Iterable[Demonstration]]
    ) -> list[Demonstration]:
        """Return the next `count` demonstrations.

        Args:
            demonstrations_of: returns the demonstrations of questions, as many as hold.

        Raises:
            ValueError: none of the whole training set holds.
        """
        taken: list[Demonstration] = []
        last = self.position + len(self._questions)
        while len(taken) < count:
            if not taken and self.position >= last:
                raise ValueError("no demonstration of the training set holds; python -m data_preprocess.check says why")
            taken += demonstrations_of([self._next() for _ in range(count - len(taken))])
        return taken

    def _next(self) -> Question:
        epoch, place = divmod(self.position, len(self._questions))
        if self._order is None or self._order[0] != epoch:
            order = list(range(len(self._questions)))
            self._rng(epoch).shuffle(order)
            self._order = epoch, order
        self.position += 1
        return self._questions[self._order[1][place]]
