"""Word n-grams shared with evaluation questions: the measure of contamination."""

import re
from collections.abc import Iterable

DEFAULT_N = 13  # words; the length that GPT-3's authors used for contamination (arXiv 2005.14165, appendix C)
_WORD = re.compile(r"\w+")


class NGramIndex:
    """The word n-grams of evaluation questions.

    A question of fewer than n words is contaminated only if an evaluation question differs from it only in case and
    white space.

    Args:
        n: number of consecutive words.
    """

    def __init__(self, n: int = DEFAULT_N):
        self.n = n
        self._sources: list[str] = []
        self._ngrams: dict[tuple[str, ...], int] = {}

    def add(self, source: str, questions: Iterable[str]) -> int:
        """Add the questions of one evaluation set.

        Args:
            source: the name of the set.
            questions: their texts.

        Returns:
            The number of questions added.
        """
        self._sources.append(source)
        count = 0
        for question in questions:
            for ngram in self._of(question):
                self._ngrams.setdefault(ngram, len(self._sources) - 1)
            count += 1
        return count

    def overlap(self, question: str) -> str | None:
        """Return the name of the first evaluation set that `question` shares an n-gram with; None if there is none."""
        for ngram in self._of(question):
            if ngram in self._ngrams:
                return self._sources[self._ngrams[ngram]]
        return None

    def _of(self, question: str) -> Iterable[tuple[str, ...]]:
        text = question.casefold()
        words = tuple(_WORD.findall(text))
        if len(words) < self.n:
            # Signs count here, because 7-2 and 7+2 have the same words.
            return [tuple(text.split())] if text.strip() else []
        return (words[i : i + self.n] for i in range(len(words) - self.n + 1))
