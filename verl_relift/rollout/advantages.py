"""Advantages of tokens that the policy did not write; verl's estimator gives none where its mask is 0."""

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from ..types import Role
from .groups import draw_of

_EPSILON = 1e-6  # verl's


def row_advantage(reward: float, counted: Sequence[float], by_std: bool) -> float:
    """Return the GRPO advantage of a row, as verl's estimator has it for the rollouts.

    Args:
        reward: of the row.
        counted: rewards of the rows that make the group's mean, the row's own among them where it counts.
        by_std: divide by their standard deviation.
    """
    if len(counted) < 2:  # verl's convention
        return reward / (1.0 + _EPSILON) if by_std else reward
    centered = reward - fmean(counted)
    return centered / (stdev(counted) + _EPSILON) if by_std else centered


def write_guided(batch: KVBatchMeta, by_std: bool) -> None:
    """Write the advantages of guided tokens: the row's reward against the rows of its question that count.

    verl's advantages of what the policy wrote stay.

    Args:
        batch: rows with verl's `advantages`, padding included.
        by_std: `algorithm.norm_adv_by_std_in_grpo`.
    """
    guided = [i for i, tag in enumerate(batch.tags) if _has_guided_tokens(tag)]
    if not guided:
        return
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["uid", "rm_scores"])
    rewards = data["rm_scores"].sum(dim=1).tolist()
    counted: dict[str, list[float]] = {}
    for key, name, reward in zip(batch.keys, list(data["uid"]), rewards, strict=True):
        if name == draw_of(key):
            counted.setdefault(name, []).append(reward)
    keys = [batch.keys[i] for i in guided]
    of_rows = [row_advantage(rewards[i], counted.get(draw_of(batch.keys[i]), []), by_std) for i in guided]
    rows = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["roles", "advantages"])
    written = list(_with_guided(rows["roles"].unbind(), rows["advantages"].unbind(), of_rows))
    column = TensorDict(
        {"advantages": torch.nested.as_nested_tensor(written, layout=torch.jagged)}, batch_size=[len(keys)]
    )
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=column)


def _has_guided_tokens(tag: dict) -> bool:
    return not tag.get("is_padding", False) and bool(tag.get("added") or tag.get("forced"))


def _with_guided(
    roles: Sequence[torch.Tensor], advantages: Sequence[torch.Tensor], of_rows: Sequence[float]
) -> Iterator[torch.Tensor]:
    for role, own, of_row in zip(roles, advantages, of_rows, strict=True):
        written = (role == Role.OWN) | (role == Role.CONTINUATION)
        yield torch.where(written, own, torch.full_like(own, of_row))
