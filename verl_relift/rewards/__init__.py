"""Grading: whether a response's final answer is right, decided in microseconds where that is possible, in bounded time
always, and without running anything that a model wrote.

    response, ground truth -> extract -> exact -> (judge process: math-verify) -> Grade -> RewardValues -> number

Importing this package loads neither sympy nor math-verify; only the judge's processes do.
"""

from .grader import Grader, grade, grade_async, grade_many, shared_grader, unparsable_ground_truths
from .outcome import Grade, GradeOutcome
from .settings import Convention, GradingRules, PoolSettings, RewardValues, Thinking

__all__ = [
    "Convention",
    "Grade",
    "GradeOutcome",
    "Grader",
    "GradingRules",
    "PoolSettings",
    "RewardValues",
    "Thinking",
    "grade",
    "grade_async",
    "grade_many",
    "shared_grader",
    "unparsable_ground_truths",
]
