"""Tests the paper's claims (arXiv 2506.07527 v2) on the cells of a study. All verdicts are computed from the cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from benchmarks.reproduce.estimates import Difference, difference
from benchmarks.reproduce.records import AVERAGE, OOD_AVERAGE, Record, of_method


class Verdict(StrEnum):
    """The verdict on a claim."""

    HOLDS = "holds"  # the interval is on the claimed side of 0
    CONTRADICTED = "contradicted"  # the interval is on the other side of 0
    UNDECIDED = "undecided"  # the interval contains 0, or there are too few cells for an interval


@dataclass(frozen=True)
class Claim:
    """The claim that one method is better than another.

    Attributes:
        better: name of the method that is claimed to be better.
        worse: name of the other method.
        measure: name of the measure.
        source: what the paper, or its critics, report.
    """

    better: str
    worse: str
    measure: str
    source: str


@dataclass(frozen=True)
class Tested:
    """A claim with its evidence and verdict."""

    claim: Claim
    difference: Difference
    verdict: Verdict


CLAIMS = (
    Claim("relift", "base", AVERAGE, "table 1"),
    Claim("relift", "rl", AVERAGE, "table 1: 52.6 against 46.9"),
    Claim("relift", "rl", "hardest", "the method's reason: RL learns nothing where every rollout fails"),
    Claim("relift", "sft", AVERAGE, "table 1: 52.6 against 49.0"),
    Claim("relift", "sft_compute", AVERAGE, "as above, at equal compute"),
    Claim("relift", "rl_with_sft_loss", AVERAGE, "table 1: 52.6 against 48.6"),
    Claim("relift", "sft_then_rl", AVERAGE, "table 1: 52.6 against 50.7; arXiv 2604.23747 finds the reverse"),
    Claim("relift", "always", AVERAGE, "ablation: 23.8 with an update after every step"),
    Claim("relift", "every_8", AVERAGE, "ablation: 49.1 with an update every 8 steps"),
    Claim("relift", "other", AVERAGE, "ablation: 45.5 with questions that are not hardest"),
    Claim("relift", "sft_same_number", AVERAGE, "what RL adds to as many demonstrations"),
    Claim("relift", "sft_hardest", AVERAGE, "no forgetting, unlike SFT on hard questions alone"),
    Claim("relift", "sft_few_then_rl", AVERAGE, "SFT then RL, at an equal number of demonstrations"),
    Claim("relift", "rl", OOD_AVERAGE, "table 1: MMLU-Pro 53.9 against 46.3"),
    Claim("relift", "sft", OOD_AVERAGE, "table 1: MMLU-Pro 53.9 against 44.4"),
)
MOST_DEMONSTRATIONS = 0.13  # share of the demonstrations that SFT uses, from the paper's abstract


def evaluate_claims(records: Sequence[Record], claims: Sequence[Claim] = CLAIMS) -> list[Tested]:
    """Test the claims whose methods both have cells on a common base.

    Args:
        records: the cells.
        claims: the claims.
    """
    tested = []
    for claim in claims:
        ours, theirs = of_method(records, claim.better), of_method(records, claim.worse)
        if {record.base for record in ours} & {record.base for record in theirs}:
            found = difference(ours, theirs, lambda record, name=claim.measure: record.measure(name))
            tested.append(Tested(claim, found, verdict(found)))
    return tested


def verdict(found: Difference) -> Verdict:
    """Return the verdict on the claim that a difference is above 0."""
    if found.half_width is None or abs(found.value) <= found.half_width:
        return Verdict.UNDECIDED
    return Verdict.HOLDS if found.value > 0 else Verdict.CONTRADICTED


def demonstration_share(records: Sequence[Record], method: str) -> float | None:
    """Return the mean share of the available demonstrations that a method used; None without cells."""
    shares = [r.demonstrations_used / r.demonstrations_available for r in of_method(records, method)]
    return fmean(shares) if shares else None
