"""Demonstrations from a teacher: any server that speaks OpenAI's chat completions, asked while training runs.

    TeacherQuestion -> Teacher.ask -> Asker (up to k samples, each graded) -> Teacher.collect -> TeacherAnswer

| module            | holds                                                            |
|-------------------|------------------------------------------------------------------|
| `question`        | `TeacherQuestion`, `TeacherAnswer` and `Failure`                 |
| `client`          | one request, and everything that can come back                   |
| `cache`           | replies on disk                                                  |
| `budget`          | tokens and cost, reserved before a request                       |
| `circuit_breaker` | when a request may be sent                                       |
| `asking`          | from a question to an answer: samples, retries, grading          |
| `teacher`         | `Teacher`, which the trainer calls; no method waits for the server |

docs/teacher.md describes the behavior.
"""

from .question import Failure, TeacherAnswer, TeacherQuestion
from .teacher import Teacher

__all__ = ["Failure", "Teacher", "TeacherAnswer", "TeacherQuestion"]
