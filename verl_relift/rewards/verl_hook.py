"""verl's reward function: `reward.custom_reward_function.path=pkg://verl_relift.rewards.verl_hook`.

`compute_score` is a coroutine. verl's reward loop awaits it once per response while other responses are still being
generated. The call decides integer answers itself; worker processes decide the others without blocking the event loop.
"""

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

    Args:
        data_source: not used; part of verl's signature.
        solution_str: the response.
        ground_truth: a string, a number, or a list of alternatives.
        extra_info: not used; part of verl's signature.
        rewards: fields of `RewardValues`.
        **settings: fields of `GradingRules`. verl passes further arguments, such as a reward model's address, which
            grading does not need. Like `rewards`, these come from `reward.custom_reward_function.reward_kwargs`.

    Returns:
        The columns of `score_of`.

    Raises:
        ValueError: a setting has an unknown or invalid value.
        TypeError: `rewards` has an unknown name, or the ground truth has an unusable type.
    """
    grade = await grade_async(solution_str, ground_truth, rules=_rules(settings))
    return score_of(grade, RewardValues(**rewards) if rewards else RewardValues())


def start_judge(**settings: Any) -> threading.Thread:
    """Start the judge in the background. It takes seconds, and the first answer that needs it would wait for them.

    If the judge cannot start, this logs a warning, and the first answer that needs the judge raises the error.

    Args:
        **settings: the keyword arguments of `compute_score`.

    Returns:
        The thread that starts the judge.
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
    """Return the rules among the settings; verl passes other settings too."""
    names = {field.name for field in fields(GradingRules)}
    return GradingRules(**{name: value for name, value in settings.items() if name in names})


def score_of(grade: Grade, values: RewardValues) -> dict[str, Any]:
    """Return the columns that verl carries for a response; their types are the same for every response.

    Returns:
        score: the reward (float). acc: 1.0 if correct, else 0.0. outcome: the outcome's name (str). pred: the extracted
        answer, empty if there is none (str); verl takes its majority vote over it.
    """
    return {
        "score": values.of(grade.outcome),
        "acc": float(grade.correct),
        "outcome": grade.outcome.value,
        "pred": grade.extracted or "",
    }
