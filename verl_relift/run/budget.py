"""What a run has spent on demonstrations, so that supervised fine-tuning may spend as much."""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .folder import METRICS

# The metrics that count demonstrations as often as they were trained on: in updates of their own, since the start of
# the run; in groups, and in a stream beside them, in each step.
SINCE_THE_START = "relift/sft_demonstrations"
OF_EACH_STEP = ("method/demonstrations_joined", "method/demonstrations_used")


class By(StrEnum):
    """What two runs spend alike."""

    DEMONSTRATIONS = "demonstrations"  # trained on, each time counted
    TOKENS = "tokens"  # of those, prompts included
    OPERATIONS = "operations"  # beyond reinforcement learning: 6 per parameter and trained token, 2 per sampled one


@dataclass(frozen=True)
class Spent:
    """Totals of a run over its steps."""

    demonstrations: float
    tokens: float
    sampled: float  # tokens of what was asked again

    @property
    def operations(self) -> float:
        """Per parameter of the model (arXiv 2001.08361, table 1)."""
        return 6.0 * self.tokens + 2.0 * self.sampled

    def steps(self, by: By, demonstrations: float, tokens: float) -> int:
        """Return how many steps of supervised fine-tuning spend as much, to the nearest whole one.

        Args:
            by: what is counted.
            demonstrations: that a step trains on.
            tokens: of a demonstration with its prompt, on average.
        """
        match by:
            case By.DEMONSTRATIONS:
                steps = self.demonstrations / demonstrations
            case By.TOKENS:
                steps = self.tokens / (demonstrations * tokens)
            case By.OPERATIONS:
                steps = self.operations / (6.0 * demonstrations * tokens)
        return max(1, round(steps))


def spent(run: Path) -> Spent:
    """Read what a run has spent from its `metrics.jsonl`.

    Raises:
        OSError: there is none.
        ValueError: it has no complete line.
    """
    records = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    if not records:
        raise ValueError(f"{METRICS} is empty")

    def total(name: str) -> float:
        return sum(record.get(name) or 0.0 for record in records)

    last = records[-1]
    return Spent(
        demonstrations=last.get(SINCE_THE_START, 0) + sum(map(total, OF_EACH_STEP)),
        tokens=last.get("relift/sft_tokens", 0) + total("method/demonstration_tokens"),
        sampled=total("method/second_round_tokens"),
    )
