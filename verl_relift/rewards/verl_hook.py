"""verl's reward function: `reward.custom_reward_function.path=pkg://verl_relift.rewards.verl_hook`.

`compute_score` is a coroutine: verl's reward loop awaits it once per response while other responses are still being
generated. Integer answers are decided inside the call; the judge's processes decide the rest off the event loop.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import fields
from typing import Any

from .grader import grade_async, shared_grader
from .outcome import Grade
from .settings import GradingRules, RewardValues

PATH = f"pkg://{__name__}"

logger = logging.getLogger(__name__)


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    *,
    rewards: dict[str, float] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Grade one response for verl.

    The keyword arguments come from `reward.custom_reward_function.reward_kwargs` and are `GradingRules`' and
    `RewardValues`' fields. verl passes further ones (a reward model's address) that grading does not need.

    Returns `score_of`'s columns.
    """
    grade = await grade_async(solution_str, ground_truth, rules=_rules(settings))
    return score_of(grade, RewardValues(**rewards) if rewards else RewardValues())


def start_judge(**settings: Any) -> threading.Thread:
    """Load the judge in the background, which takes seconds: else the first answer that needs it waits for that.

    Takes `compute_score`'s keyword arguments. Returns the thread that does it. What keeps the judge from starting is
    logged, and raised by the first answer that needs it.
    """
    thread = threading.Thread(target=_start_judge, args=(_rules(settings),), name="judge start", daemon=True)
    thread.start()
    return thread


def _start_judge(rules: GradingRules) -> None:
    try:
        shared_grader(rules).pool.start()
    except RuntimeError as error:
        logger.warning("%s", error)


def _rules(settings: dict[str, Any]) -> GradingRules:
    """Of the settings those that are rules: verl passes others too."""
    names = {field.name for field in fields(GradingRules)}
    return GradingRules(**{name: value for name, value in settings.items() if name in names})


def score_of(grade: Grade, values: RewardValues) -> dict[str, Any]:
    """The columns that verl carries for a response, of the same types for every response.

    score: the reward (float). acc: 1.0 if correct, else 0.0. outcome: the outcome's name (str). pred: the extracted
    answer, empty when there is none (str; verl takes its majority vote over it).
    """
    return {
        "score": values.of(grade.outcome),
        "acc": float(grade.correct),
        "outcome": grade.outcome.value,
        "pred": grade.extracted or "",
    }
