"""Turns graded responses into `summary.json` and its table."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import estimators
from .errors import EvaluationError
from .protocol import RELIFT_BENCHMARKS, relift_benchmark
from .store import Graded

FORMAT = 1


@dataclass(slots=True)
class SourceSamples:
    """What the estimators need of one source.

    Rows with the same prompt and ground truth are one question, whose samples are those of all its rows: a file that
    repeats 30 questions eight times has 30 independent numbers, not 240.

    Attributes:
        correct: verdicts by question, in order of row and sample; the key is that of the question's first row.
        answers: extracted answers by question, in the same order.
        rows: number of rows of the file.
        outcomes: number of responses by outcome.
        tokens: response tokens in total.
        truncated: number of responses cut at the length limit.
        rewards: of all responses, where a reward function of the user's returned them.
    """

    correct: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[str, list[str | None]] = field(default_factory=lambda: defaultdict(list))
    rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    truncated: int = 0
    rewards: list[float] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Samples per question; the fewest where some questions are repeated more often than others."""
        return min(map(len, self.correct.values()))


def collect(generations: Iterable[Graded]) -> dict[str, SourceSamples]:
    """Group responses by source.

    Args:
        generations: graded responses.

    Returns:
        The samples by source, in order of first appearance.

    Raises:
        EvaluationError: there are no responses, or questions of one source have different numbers of samples.
    """
    sources: dict[str, SourceSamples] = {}
    samples_of: dict[str, Counter[str]] = defaultdict(Counter)  # by source and row
    first_rows: dict[tuple[str, str, str], str] = {}
    for graded in generations:
        samples = sources.setdefault(graded.source, SourceSamples())
        samples_of[graded.source][graded.key] += 1
        key = first_rows.setdefault((graded.source, graded.question, repr(graded.ground_truth)), graded.key)
        samples.correct[key].append(graded.correct)
        samples.answers[key].append(graded.answer)
        samples.outcomes[graded.outcome] += 1
        samples.tokens += graded.tokens
        samples.truncated += graded.truncated
        if graded.reward is not None:
            samples.rewards.append(graded.reward)
    for name, samples in sources.items():
        samples.rows = len(samples_of[name])
        sizes = set(samples_of[name].values())
        if len(sizes) > 1:
            raise EvaluationError(
                f"source {name}: questions have {min(sizes)} to {max(sizes)} samples; run the evaluation to its end"
            )
    if not sources:
        raise EvaluationError("the evaluation has no responses; run it to its end")
    return sources


def summarize(sources: Mapping[str, SourceSamples], seed: int = 0) -> dict[str, Any]:
    """Return the numbers of every source and their unweighted mean, each with a 95% bootstrap interval.

    Args:
        sources: a result of `collect`.
        seed: seed of the bootstrap. Equal responses and seeds give equal numbers.

    Returns:
        `sources`, `average`, and `relift_average`, which is None unless all six of the paper's benchmarks are present.
    """
    rng = np.random.default_rng(seed)
    described, means = {}, {}
    for name, samples in sources.items():
        accuracies = [estimators.average(verdicts) for verdicts in samples.correct.values()]
        means[name] = estimators.bootstrap_means(accuracies, rng)
        described[name] = _describe(samples, accuracies, means[name], rng)
    return {
        "sources": described,
        "average": _average(list(described), described, means),
        "relift_average": _relift_average(described, means),
    }


def _describe(samples: SourceSamples, accuracies: list[float], means: Any, rng: np.random.Generator) -> dict[str, Any]:
    n, total = samples.n, samples.outcomes.total()
    rights = [(len(verdicts), sum(verdicts)) for verdicts in samples.correct.values()]
    votes = [estimators.majority(samples.answers[key], samples.correct[key]) for key in samples.correct]
    return {
        "questions": len(rights),
        "rows": samples.rows,
        "n": n,
        "accuracy": float(np.mean(accuracies)),
        "accuracy_interval": estimators.interval(accuracies, means),
        "pass_at_k": {
            str(k): _estimate([estimators.pass_at_k(size, right, k) for size, right in rights], rng)
            for k in range(1, n + 1)
        },
        "majority": _estimate(votes, rng),
        "mean_tokens": samples.tokens / total,
        "truncation_rate": samples.truncated / total,
        "outcomes": dict(sorted(samples.outcomes.items())),
        **({"mean_reward": float(np.mean(samples.rewards))} if samples.rewards else {}),
    }


def _estimate(values: Sequence[float], rng: np.random.Generator) -> dict[str, Any]:
    return {
        "value": float(np.mean(values)),
        "interval": estimators.interval(values, estimators.bootstrap_means(values, rng)),
    }


def _average(names: list[str], described: Mapping[str, Any], means: Mapping[str, Any]) -> dict[str, Any]:
    """Return the unweighted mean over sources. The bootstrap resamples each source's questions independently.

    The mean of one source is that source's own, whose interval is exact where all its questions are alike.
    """
    resampled = estimators.percentiles(np.mean([means[name] for name in names], axis=0))
    return {
        "accuracy": float(np.mean([described[name]["accuracy"] for name in names])),
        "accuracy_interval": described[names[0]]["accuracy_interval"] if len(names) == 1 else resampled,
        "mean_tokens": float(np.mean([described[name]["mean_tokens"] for name in names])),
        "sources": names,
    }


def _relift_average(described: Mapping[str, Any], means: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the paper's overall average over its six benchmarks; None unless each is present exactly once."""
    found = {name: relift_benchmark(name) for name in described}
    names = [name for name, benchmark in found.items() if benchmark]
    if sorted(found[name] for name in names) != sorted(RELIFT_BENCHMARKS):
        return None
    return _average(names, described, means)


def table(summary: Mapping[str, Any]) -> str:
    """Return a summary as a text table. Accuracies and their 95% intervals are in percent."""
    header = [
        "source",
        "questions",
        "n",
        "avg@n",
        "95%",
        *_shown_ks(summary),
        "maj@n",
        "reward",
        "tokens",
        "cut",
        "other outcomes",
    ]
    rows = [header]
    for name, source in summary["sources"].items():
        passes = [source["pass_at_k"].get(k.removeprefix("pass@")) for k in _shown_ks(summary)]
        rows.append(
            [
                name,
                str(source["questions"]),
                str(source["n"]),
                percent(source["accuracy"]),
                interval(source["accuracy_interval"]),
                *(percent(estimate["value"]) if estimate else "" for estimate in passes),
                percent(source["majority"]["value"]) if source["n"] > 1 else "",
                f"{source['mean_reward']:.3f}" if "mean_reward" in source else "",
                f"{source['mean_tokens']:.0f}",
                percent(source["truncation_rate"]),
                _unusual(source["outcomes"]),
            ]
        )
    for label, key in (("average", "average"), ("average of the paper's six", "relift_average")):
        average = summary[key]
        if average:
            cells = [label, "", "", percent(average["accuracy"]), interval(average["accuracy_interval"])]
            cells += [""] * (len(header) - len(cells))
            cells[header.index("tokens")] = f"{average['mean_tokens']:.0f}"
            rows.append(cells)
    repeated = [
        f"{name}: {source['rows']} rows repeat {source['questions']} questions; each question counts once, with "
        "the samples of all its rows"
        for name, source in summary["sources"].items()
        if source.get("rows", source["questions"]) != source["questions"]
    ]
    return "\n".join([align(_without_empty_columns(rows)), *repeated])


def _without_empty_columns(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    kept = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return [list(row) for row in zip(*kept, strict=True)]


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text columns: the first aligned left, the others right, with a rule under the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(line.rstrip() for line in lines)


def percent(value: float) -> str:
    """Format a fraction in percent: 0.123 -> 12.3."""
    return f"{100 * value:.1f}"


def interval(bounds: Sequence[float]) -> str:
    """Format an interval in percent: (0.1, 0.2) -> 10.0..20.0."""
    return f"{percent(bounds[0])}..{percent(bounds[1])}"


def _shown_ks(summary: Mapping[str, Any]) -> list[str]:
    """Return pass@k for every power of two from 2 to the largest n."""
    most = max(source["n"] for source in summary["sources"].values())
    return [f"pass@{2**power}" for power in range(1, most.bit_length()) if 2**power <= most]


def _unusual(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcomes.items() if name not in ("correct", "wrong"))
