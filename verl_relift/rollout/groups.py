"""Groups read back from TransferQueue."""

from collections.abc import Mapping

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from ..rewards.function import accuracy_of
from ..types import GradedRollout, Group, Prompt


def read_groups(
    batch: KVBatchMeta, prompts: Mapping[str, Prompt], correct_from: float | None = None, with_tokens: bool = False
) -> list[Group]:
    """Return the graded groups of a sampled batch, in the order of its keys.

    Args:
        batch: rows of rollouts, without padding.
        prompts: what was asked, by draw.
        correct_from: the least reward of a right answer; None: rewards are 0 or 1, or come with `acc`.
        with_tokens: read the token ids, too.
    """
    fields = ["rm_scores", "extra_fields", *(["responses"] if with_tokens else [])]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    rewards = data["rm_scores"].sum(dim=1).tolist()
    responses = [r.numpy() for r in data["responses"].unbind()] if with_tokens else [None] * len(rewards)
    rollouts: dict[str, list[GradedRollout]] = {}
    for key, tag, reward, extra, token_ids in zip(
        batch.keys, batch.tags, rewards, data["extra_fields"], responses, strict=True
    ):
        info = extra["reward_extra_info"]
        rollout = GradedRollout(
            key,
            reward,
            accuracy_of(reward, info, correct_from),
            info,
            tokens=tag["response_len"],
            token_ids=token_ids,
            truncated=tag.get("truncated", False),
            forced=tag.get("forced", 0),
        )
        rollouts.setdefault(draw_of(key), []).append(rollout)
    return [Group(prompts[draw], tuple(graded)) for draw, graded in rollouts.items()]


def draw_of(key: str) -> str:
    """Return the draw that a row belongs to; verl's keys are {uid}_{session}_{index}."""
    return key.rsplit("_", 2)[0]
