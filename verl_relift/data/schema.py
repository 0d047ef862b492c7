"""The parquet schema of the project: `Row` (a row in Python), `SCHEMA` (a row in Arrow) and the conversion.

The columns are verl's (`data_source, prompt, ability, reward_model, extra_info`) and `target`, the demonstration as a
chat list. `target` is null in evaluation sets and for questions without a solution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa

from .errors import DataError, Reason

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
REWARD_MODEL = pa.struct([("style", pa.string()), ("ground_truth", pa.string())])
EXTRA_INFO = pa.struct([("index", pa.int64()), ("split", pa.string()), ("level", pa.string()), ("id", pa.string())])
SCHEMA = pa.schema(
    [
        pa.field("data_source", pa.string()),
        pa.field("prompt", pa.list_(MESSAGE)),
        pa.field("target", pa.list_(MESSAGE)),
        pa.field("ability", pa.string()),
        pa.field("reward_model", REWARD_MODEL),
        pa.field("extra_info", EXTRA_INFO),
    ]
)
REWARD_STYLE = "rule"


@dataclass(slots=True)
class Row:
    """One question.

    Attributes:
        data_source: the name under which metrics appear.
        prompt: (role, content) messages.
        target: the assistant's demonstration; None if there is none.
        ground_truth: the final answer.
        index: the row's place in its source, counted from 0 over the input files in order.
        split: the name of the split.
        level: the source's difficulty or category; None if it has none.
        id: the source's own identifier; None if it has none.
        ability: the skill that the question tests.
        tokens: lengths of prompt and target in tokens; None if they were not counted. Not written.
    """

    data_source: str
    prompt: list[tuple[str, str]]
    target: str | None
    ground_truth: str
    index: int
    split: str
    level: str | None = None
    id: str | None = None
    ability: str = "math"
    tokens: tuple[int, int] | None = None

    @property
    def question(self) -> str:
        """The last user message, by which duplicates and contamination are detected."""
        return next((content for role, content in self.prompt[::-1] if role == "user"), "")

    @property
    def characters(self) -> tuple[int, int]:
        """Lengths of the prompt's messages and of the target, in characters."""
        prompt = 0
        for _, content in self.prompt:
            prompt += len(content)
        return prompt, len(self.target or "")


def validate(row: Row) -> None:
    """Check that `row` can be used for training or evaluation.

    Raises:
        DataError: the question or the ground truth is empty, or the demonstration is blank.
    """
    question = row.question
    if not question or question.isspace():
        raise DataError(
            Reason.EMPTY_PROMPT, "the question is empty", column="prompt", remedy="drop the row or fill it in"
        )
    if not row.ground_truth or row.ground_truth.isspace():
        raise DataError(
            Reason.NO_GROUND_TRUTH,
            "the ground truth is empty",
            column="reward_model.ground_truth",
            remedy="drop the row or fill it in",
        )
    if row.target is not None and (not row.target or row.target.isspace()):
        raise DataError(
            Reason.WRONG_TYPE, "the demonstration is blank", column="target", remedy="use null if there is none"
        )


def to_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    """Convert rows to one Arrow record batch of `SCHEMA`.

    The batch is built column by column over flat arrays, which is several times faster than converting a list of nested
    dicts.
    """
    prompts = [row.prompt for row in rows]
    targets = [None if row.target is None else (("assistant", row.target),) for row in rows]
    reward_model = pa.StructArray.from_arrays(
        [pa.array([REWARD_STYLE] * len(rows), pa.string()), pa.array([row.ground_truth for row in rows], pa.string())],
        fields=list(REWARD_MODEL),
    )
    extra_info = pa.StructArray.from_arrays(
        [pa.array([getattr(row, field.name) for row in rows], field.type) for field in EXTRA_INFO],
        fields=list(EXTRA_INFO),
    )
    columns = [
        pa.array([row.data_source for row in rows], pa.string()),
        _chats(prompts),
        _chats(targets),
        pa.array([row.ability for row in rows], pa.string()),
        reward_model,
        extra_info,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _chats(chats: Sequence[Sequence[tuple[str, str]] | None]) -> pa.ListArray:
    """Return chat lists, or None, as an Arrow list of messages."""
    flat = [message for chat in chats if chat is not None for message in chat]
    values = pa.StructArray.from_arrays(
        [pa.array([role for role, _ in flat], pa.string()), pa.array([content for _, content in flat], pa.string())],
        fields=list(MESSAGE),
    )
    ends = list(accumulate((len(chat) if chat is not None else 0 for chat in chats), initial=0))
    mask = pa.array([chat is None for chat in chats], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, mask=mask).cast(SCHEMA.field("prompt").type)
