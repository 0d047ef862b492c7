"""verl's reward function: `reward.custom_reward_function.path=pkg://verl_relift.rewards.verl_hook`.

`compute_score` is a coroutine. verl's reward loop awaits it once per response while other responses are still being
generated. The call decides integer answers itself; worker processes decide the others without blocking the event loop.
"""

import logging
import threading
from dataclasses import fields
from typing import Any

from .extract import THINK_OPEN
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
    prompt_opens_thought: bool = False,
    rewards: dict[str, float] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Grade one response for verl.

    Args:
        data_source: not used; part of verl's signature.
        solution_str: the response.
        ground_truth: a string, a number, or a list of alternatives.
        extra_info: not used; part of verl's signature.
        prompt_opens_thought: whether the prompt ends inside a thought, so that the response begins in it.
        rewards: fields of `RewardValues`.
        **settings: fields of `GradingRules`. verl passes further arguments, such as a reward model's address, which
            grading does not need. Like `rewards`, these come from `reward.custom_reward_function.reward_kwargs`.

    Returns:
        The columns of `score_of`.

    Raises:
        ValueError: a setting has an unknown or invalid value.
        TypeError: `rewards` has an unknown name, or the ground truth has an unusable type.
    """
    response = THINK_OPEN + solution_str if prompt_opens_thought else solution_str
    grade = await grade_async(response, ground_truth, rules=_rules(settings))
    return score_of(grade, RewardValues(**rewards) if rewards else RewardValues())


def setting_problem(settings: dict[str, Any]) -> str | None:
    """Return what is wrong with `reward.custom_reward_function.reward_kwargs`; None if nothing is."""
    settings = dict(settings)
    opens_thought, rewards = settings.pop("prompt_opens_thought", False), settings.pop("rewards", None)
    if not isinstance(opens_thought, bool):
        return f"prompt_opens_thought={opens_thought!r} must be true or false"
    for cls, values, path in ((GradingRules, settings, ""), (RewardValues, rewards or {}, "rewards.")):
        if not isinstance(values, dict):
            return f"rewards={values!r} must be a group of rewards by outcome"
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            more = set() if path else {"prompt_opens_thought", "rewards"}
            return f"{path}{unknown[0]} is not a setting; choose from {', '.join(sorted(known | more))}"
        try:
            cls(**values)
        except (TypeError, ValueError) as error:
            return str(error)
    return None


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
