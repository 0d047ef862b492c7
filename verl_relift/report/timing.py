"""Reads the seconds of a run by stage. The timers of a step do not overlap, so that their sum is the step's time."""

import numpy as np

from .runs import Run, Series

STEP = "timing_s/step"
OTHER = "other"
# Timers inside a step, in the order in which they run.
STAGES = {
    "timing_s/gen": "generation",
    "timing_s/collect": "demonstrations",
    "timing_s/balance": "balancing ranks",
    "timing_s/old_log_prob": "old log-probs",
    "timing_s/ref": "reference log-probs",
    "timing_s/adv": "advantages",
    "timing_s/update_actor": "RL update",
    "timing_s/update_actor_sft": "supervised update",
    "timing_s/save_checkpoint": "checkpoint",
    "timing_s/update_weights": "weights to vLLM",
}
# Timers outside of steps.
OUTSIDE = {"timing_s/testing": "validation", "timing_s/startup": "startup"}


def stage_series(run: Run) -> dict[str, Series]:
    """Return the seconds of every step by stage, on the steps that have a time.

    Stages that the run never timed are left out. What a step spends outside of all stages is under `OTHER`.

    Args:
        run: the run.

    Returns:
        Series of equal steps by the stage's title, in the order of a step; empty if the run has no step times.
    """
    if STEP not in run.series:
        return {}
    steps, seconds = run.series[STEP].steps, np.nan_to_num(run.series[STEP].values)
    layers = {title: _on_steps(run.series[name], steps) for name, title in STAGES.items() if name in run.series}
    layers[OTHER] = np.maximum(0.0, seconds - sum(layers.values(), np.zeros(len(steps))))
    return {title: Series(steps, layer) for title, layer in layers.items()}


def stage_seconds(run: Run) -> dict[str, float]:
    """Return the seconds of the whole run by stage.

    Args:
        run: the run.

    Returns:
        Seconds by the stage's title: the stages of steps, `OTHER` if it is above 0, then validation and startup. Empty
        if the run has no step times.
    """
    inside = {title: float(series.values.sum()) for title, series in stage_series(run).items()}
    if not inside:
        return {}
    if inside[OTHER] <= 0:
        del inside[OTHER]
    outside = {title: float(run.series[name].finite.sum()) for name, title in OUTSIDE.items() if name in run.series}
    return inside | outside


def _on_steps(series: Series, steps: np.ndarray) -> np.ndarray:
    """Return the values of a series at the given steps, float64 [steps]; 0 where it has none."""
    values = np.zeros(len(steps))
    places = np.searchsorted(steps, series.steps)
    inside = np.isin(series.steps, steps)
    values[places[inside]] = np.nan_to_num(series.values[inside])
    return values
