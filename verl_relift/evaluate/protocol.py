"""How many samples each source gets and how they are drawn; the protocol of the ReLIFT paper as a preset."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .errors import EvaluationError

# The six benchmarks whose unweighted mean is the paper's overall average (arXiv 2506.07527, main table), as a data
# source's name may spell them: letters and digits only, lower case. The first pattern that is found decides.
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
    """How responses are drawn.

    n: samples a question of every source that `n_of` does not name.
    n_of: samples a question by source.
    temperature: 0 is greedy. top_p: nucleus. max_tokens: of the response.
    seed: every sample's own seed is derived from it.
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
            raise EvaluationError("--temperature 0 is greedy: more than one sample a question would repeat the first")

    def samples(self, source: str) -> int:
        """Samples of each question of a source."""
        return self.n_of.get(source, self.n)

    def seed_of(self, key: str, sample: int) -> int:
        """The seed (63 bits) of one sample of one question, whatever the order and the replica it is drawn on."""
        digest = hashlib.blake2b(f"{self.seed}/{key}/{sample}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1


def relift_samples(source: str) -> int:
    """Samples a question under the paper's protocol: 32 for AIME and AMC, which have few questions, 1 elsewhere."""
    return RELIFT_MANY if _MANY_SAMPLES.search(_plain(source)) else 1


def relift_benchmark(source: str) -> str | None:
    """The paper's benchmark that a source is, or None."""
    plain = _plain(source)
    return next((name for name, pattern in RELIFT_BENCHMARKS.items() if pattern.search(plain)), None)


def parse_n(values: Iterable[str], sources: Iterable[str]) -> tuple[int | None, dict[str, int]]:
    """Read `--n`: a number for all sources, or SOURCE=NUMBER. Returns (number or None, numbers by source).

    Raises EvaluationError for anything else, and for a source that the data do not have.
    """
    sources = set(sources)
    overall, by_source = None, {}
    for value in values:
        source, _, number = value.rpartition("=")
        if not number.isdigit():
            raise EvaluationError(f"--n {value}: expected a number or SOURCE=NUMBER")
        if not source:
            overall = int(number)
        elif source in sources:
            by_source[source] = int(number)
        else:
            raise EvaluationError(f"--n {value}: no such source; the data have {', '.join(sorted(sources))}")
    return overall, by_source


def _plain(source: str) -> str:
    return re.sub(r"[^a-z0-9]", "", source.lower())
