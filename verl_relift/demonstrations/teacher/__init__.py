"""Demonstrations from a teacher: any server that speaks OpenAI's chat completions, asked beside training.

    question -> Teacher.ask -> asking (k samples: cache, budget, breaker, client, grading) -> Teacher.collect

`Teacher` is what the trainer sees; none of its methods waits for the server. docs/teacher.md has the behaviour.
"""

from .question import Failure, TeacherAnswer, TeacherQuestion
from .teacher import Teacher

__all__ = ["Failure", "Teacher", "TeacherAnswer", "TeacherQuestion"]
