"""Decides how many samples each source gets and how they are drawn; holds the ReLIFT paper's protocol as a preset."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .errors import EvaluationError

# The six benchmarks whose unweighted mean is the paper's overall average (arXiv 2506.07527, main table). Each pattern
# is searched in the name of a data source, reduced to lower-case letters and digits; the first match decides.
RELIFT_BENCHMARKS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "AIME25": re.compile(r"aime(20)?25"),
        "AIME24": re.compile(r"aime((20)?24)?$"),
        "AMC": re.compile(r"amc"),
        "MATH500": re.compile(r"math500"),
        "Olympiad": re.compile(r"olympiad"),
        "MMLU-Pro": re.compile(r"mmlupro"),
    }
)
_MANY_SAMPLES = re.compile(r"aime|amc")
RELIFT_TEMPERATURE, RELIFT_TOP_P, RELIFT_MAX_TOKENS, RELIFT_MANY = 0.6, 1.0, 8192, 32


@dataclass(frozen=True, slots=True)
class Sampling:
    """How responses are sampled.

    Attributes:
        n: samples per question, for every source that `n_of` does not name.
        n_of: samples per question, by source.
        temperature: sampling temperature; 0 is greedy.
        top_p: nucleus probability.
        max_tokens: length limit of a response.
        seed: every sample's own seed is derived from this one.

    Raises:
        EvaluationError: a value is out of range, or greedy sampling is asked for more than one sample per question.
    """

    n: int = 1
    n_of: Mapping[str, int] = field(default_factory=dict)
    temperature: float = RELIFT_TEMPERATURE
    top_p: float = RELIFT_TOP_P
    max_tokens: int = RELIFT_MAX_TOKENS
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n, self.max_tokens, *self.n_of.values()) < 1:
            raise EvaluationError("--n and --max-tokens must be at least 1")
        if not (self.temperature >= 0 and 0 < self.top_p <= 1):
            raise EvaluationError("--temperature must be 0 or more, and --top-p above 0 and at most 1")
        if self.temperature == 0 and max(self.n, *self.n_of.values(), 0) > 1:
            raise EvaluationError("--temperature 0 is greedy, so all samples of a question are equal; use --n 1")

    def samples(self, source: str) -> int:
        """Return the number of samples per question of a source."""
        return self.n_of.get(source, self.n)

    def seed_of(self, key: str, sample: int) -> int:
        """Return the seed (63 bits) of one sample of one question; it does not depend on order or replica."""
        digest = hashlib.blake2b(f"{self.seed}/{key}/{sample}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1


def relift_samples(source: str) -> int:
    """Return the paper's number of samples per question: 32 for AIME and AMC, which have few questions, else 1."""
    return RELIFT_MANY if _MANY_SAMPLES.search(_plain(source)) else 1


def relift_benchmark(source: str) -> str | None:
    """Return the name of the paper's benchmark that a source holds, or None."""
    plain = _plain(source)
    return next((name for name, pattern in RELIFT_BENCHMARKS.items() if pattern.search(plain)), None)


def parse_n(values: Iterable[str], sources: Iterable[str]) -> tuple[int | None, dict[str, int]]:
    """Parse the values of `--n`: NUMBER for all sources, or SOURCE=NUMBER for one.

    Args:
        values: the values as given.
        sources: sources of the data.

    Returns:
        The number for all sources or None, and the numbers by source.

    Raises:
        EvaluationError: a value has another form or names a source that the data do not have.
    """
    sources = set(sources)
    overall, by_source = None, {}
    for value in values:
        source, _, number = value.rpartition("=")
        if not number.isdigit() or not int(number):
            raise EvaluationError(f"--n {value}: expected a number above 0 or SOURCE=NUMBER")
        if not source:
            overall = int(number)
        elif source in sources:
            by_source[source] = int(number)
        else:
            raise EvaluationError(f"--n {value}: no such source; the data have {', '.join(sorted(sources))}")
    return overall, by_source


def _plain(source: str) -> str:
    return re.sub(r"[^a-z0-9]", "", source.lower())
