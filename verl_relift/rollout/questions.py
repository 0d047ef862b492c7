"""Questions from a batch of the data set as verl's dataloader gives it."""

from typing import Any

from tensordict import TensorDict

from ..types import Question, question_id


def questions_of(
    batch: TensorDict, target_column: str | None = None, hints_column: str | None = None
) -> list[Question]:
    """Return the rows of a batch as questions.

    Args:
        batch: columns `uid`, `raw_prompt`, `reward_model`, and where the data set has them `data_source`,
            `extra_info`, `target_column` and `hints_column`, a list of texts or null.
    """
    count = len(batch)

    def column(name: str | None, default: Any) -> list[Any]:
        return list(batch[name]) if name is not None and name in batch else [default] * count

    return [
        Question(
            id=question_id(messages, reward_model["ground_truth"]),
            draw=draw,
            messages=tuple(messages),
            ground_truth=reward_model["ground_truth"],
            target=target,
            hints=tuple(hint or "" for hint in hints or ()),
            data_source=data_source,
            extra_info=extra_info,
        )
        for draw, messages, reward_model, target, hints, data_source, extra_info in zip(
            batch["uid"],
            batch["raw_prompt"],
            batch["reward_model"],
            column(target_column, None),
            column(hints_column, None),
            column("data_source", ""),
            column("extra_info", {}),
            strict=True,
        )
    ]
