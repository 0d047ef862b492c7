"""Grading: whether a response's final answer equals the ground truth.

    response, ground truth -> extract -> exact -> (worker process: math-verify) -> Grade -> RewardValues -> reward

Most verdicts take microseconds and all of them take bounded time. Grading never runs code that a model wrote.

| module                        | holds                                                             |
|-------------------------------|-------------------------------------------------------------------|
| `grader`                      | `Grader`, `grade`, `grade_many`, `grade_async`                    |
| `verl_hook`                   | `compute_score`, the reward function that verl calls              |
| `extract`, `ground_truth`     | the final answer of a response; the alternatives of a ground truth |
| `compare`                     | the decision about one answer, or the pairs left for the judge    |
| `text`, `numerals`                  | one spelling for what reads the same                              |
| `exact`, `numeric`, `options`, `quantity`, `notation`, `unevaluated` | the rules that `compare` applies |
| `judge/`                      | math-verify in worker processes with limits                       |
| `outcome`, `settings`         | the types that callers see                                        |

Importing this package loads neither sympy nor math-verify; only the worker processes load them.
"""

from .grader import (
    Grader,
    grade,
    grade_async,
    grade_many,
    shared_grader,
    unanswerable_ground_truths,
    unparsable_ground_truths,
)
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
    "unanswerable_ground_truths",
    "unparsable_ground_truths",
]
