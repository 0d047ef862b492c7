"""Summarizes `make pretrained`: `summary.json`, the table, and whether the model learned."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

from rich.table import Table

from ..evaluate.compare import compare
from ..evaluate.store import Graded, read_generations
from ..evaluate.summary import collect

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def last_number(text: str) -> float | None:
    """Return the last number of a text, which many answers without a box end with; None if there is none."""
    numbers = _NUMBER.findall(text.replace(",", ""))
    return float(numbers[-1]) if numbers else None


def measures(evaluation: Path) -> dict[str, float]:
    """Return what an evaluation's folder says of a model.

    Returns:
        `accuracy`; `marked`, the share of responses that mark a final answer, by a box or `####`; `last_number`, the
        accuracy if the last number of any response counted as its answer; `truncated`, the share of responses cut at
        the length limit; `tokens`, the mean length of a response.
    """
    responses: list[Graded] = list(read_generations(evaluation))
    mean = statistics.fmean
    return {
        "accuracy": mean(response.outcome == "correct" for response in responses),
        "marked": mean(response.answer is not None for response in responses),
        "last_number": mean(last_number(one.response) == float(one.ground_truth) for one in responses),
        "truncated": mean(response.truncated for response in responses),
        "tokens": mean(response.tokens for response in responses),
    }


def summarize(run: Path, base: Path, trained: Path, seconds: dict[str, float], peak_memory: int) -> dict[str, Any]:
    """Return the contents of `summary.json`.

    Args:
        run: folder of the run.
        base: folder of the base model's evaluation.
        trained: folder of the trained model's evaluation.
        seconds: duration by stage.
        peak_memory: bytes of all processes together.
    """
    difference = compare(base, trained)["average"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["step"] > 0]
    last = steps[-1]
    durations = [record["timing_s/step"] - record.get("timing_s/save_checkpoint", 0.0) for record in steps]
    return {
        "questions": sum(len(samples.correct) for samples in collect(read_generations(base)).values()),
        "base": measures(base),
        "trained": measures(trained),
        "gain": difference["difference"],
        "gain_interval": list(difference["interval"]),
        "steps": last["step"],
        "sft_updates": int(last.get("relift/sft_updates", 0)),
        "demonstrations_used": int(last.get("relift/demonstrations_used", 0)),
        "demonstration_fraction": last.get("relift/demonstration_fraction", 0.0),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_per_step_median": round(statistics.median(durations), 1),
        "tokens_per_second_median": round(
            statistics.median(one["perf/total_num_tokens"] / one["timing_s/step"] for one in steps)
        ),
        "rollout_actor_prob_difference_max": max(one["training/rollout_probs_diff_max"] for one in steps),
        "peak_memory_gb": round(peak_memory / 1e9, 2),
    }


def table(summary: dict[str, Any]) -> Table:
    """Return the table of both models."""
    result = Table(title=f"{summary['questions']} unseen questions, greedy")
    for column in ("", "base", "trained"):
        result.add_column(column, justify="right" if column else "left")
    base, trained = summary["base"], summary["trained"]
    shares = {
        "accuracy": "right answer, marked as final",
        "marked": "any answer marked as final",
        "last_number": "right, if the last number counts",
        "truncated": "cut at the length limit",
    }
    for name, title in shares.items():
        style = "bold" if name == "accuracy" else ""
        result.add_row(title, f"{base[name]:.1%}", f"{trained[name]:.1%}", style=style)
    result.add_row("tokens of a response", f"{base['tokens']:.0f}", f"{trained['tokens']:.0f}")
    return result


def shortfalls(summary: dict[str, Any]) -> list[str]:
    """Return the reasons why the model does not count as having learned; empty if it does."""
    low, high = summary["gain_interval"]
    if low > 0.0:
        return []
    return [f"accuracy {summary['gain']:+.1%}, with a 95% interval of {low:+.1%} to {high:+.1%} that includes none"]
