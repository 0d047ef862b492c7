"""The training set as questions that are not drawn for a step."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..types import Question, question_id


class TrainingSet(Sequence[Question]):
    """Questions by the number of their row, each read when it is asked for."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], target_column: str | None):
        """
        Args:
            rows: verl's data set.
            target_column: with the solution; None: there is none.
        """
        self._rows = rows
        self._target = target_column

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Question:
        row = self._rows[number]
        messages, truth = tuple(row["raw_prompt"]), row["reward_model"]["ground_truth"]
        return Question(
            id=question_id(messages, truth),
            draw=f"row-{number}",
            messages=messages,
            ground_truth=truth,
            target=row.get(self._target),
            data_source=row.get("data_source", ""),
            extra_info=row["extra_info"],
        )
