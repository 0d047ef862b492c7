"""Groups read back from TransferQueue."""

from collections.abc import Mapping

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from ..rewards.function import accuracy_of
from ..types import GradedRollout, Group, Prompt


def read_groups(batch: KVBatchMeta, prompts: Mapping[str, Prompt], correct_from: float | None = None) -> list[Group]:
    """Return the graded groups of a sampled batch, in the order of its keys.

    Args:
        batch: rows of rollouts, without padding.
        prompts: what was asked, by draw.
        correct_from: the least reward of a right answer; None: rewards are 0 or 1, or come with `acc`.
    """
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores", "extra_fields"]
    )
    rewards = data["rm_scores"].sum(dim=1).tolist()
    rollouts: dict[str, list[GradedRollout]] = {}
    for key, tag, reward, extra in zip(batch.keys, batch.tags, rewards, data["extra_fields"], strict=True):
        info = extra["reward_extra_info"]
        rollout = GradedRollout(key, reward, accuracy_of(reward, info, correct_from), info, tag["response_len"])
        rollouts.setdefault(draw_of(key), []).append(rollout)
    return [Group(prompts[draw], tuple(graded)) for draw, graded in rollouts.items()]


def draw_of(key: str) -> str:
    """Return the draw that a row belongs to; verl's keys are {uid}_{session}_{index}."""
    return key.rsplit("_", 2)[0]
