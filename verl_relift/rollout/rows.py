"""Rows that a method adds to its groups or leaves out; in TransferQueue verl takes the added ones for rollouts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from ..types import GradedRollout, Group, Role
from .groups import draw_of


def write_edited(batch: KVBatchMeta, edited: Sequence[Group], config: DictConfig) -> KVBatchMeta:
    """Write what a method's edit has added to its groups, and note which rows do not count in their group's mean.

    Args:
        batch: the rows of the groups as graded; it is left as it is.
        edited: the groups as the method has returned them.
        config: the whole configuration.

    Returns:
        `batch` with the added rows behind the others. Their tags have `added`.
    """
    known = set(batch.keys)
    rollouts = [(group, rollout) for group in edited for rollout in group.rollouts]
    apart = [rollout.key for _, rollout in rollouts if rollout.key in known and not rollout.counts_in_mean]
    if apart:
        names = TensorDict({"uid": NonTensorStack(*apart)}, batch_size=[len(apart)])
        tq.kv_batch_put(keys=apart, partition_id=batch.partition_id, fields=names)
    added = [(group, rollout) for group, rollout in rollouts if rollout.key not in known]
    if not added:
        return batch
    tags_by_draw = {draw_of(key): tag for key, tag in zip(batch.keys, batch.tags, strict=True)}
    tags = [_tag(rollout, tags_by_draw[group.question.draw]) for group, rollout in added]
    keys = [rollout.key for _, rollout in added]
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=_columns(added, config), tags=tags)
    return KVBatchMeta(
        partition_id=batch.partition_id,
        keys=[*batch.keys, *keys],
        tags=[*batch.tags, *tags],
        extra_info=batch.extra_info,
    )


def graded_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Return verl's metrics of rewards and lengths over all rollouts as graded; none where there is no group."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    if not rollouts:
        return {}
    rewards, lengths = [rollout.reward for rollout in rollouts], [float(rollout.tokens) for rollout in rollouts]
    return {
        f"{name}/{statistic}": of(values)
        for name, values in (("critic/score", rewards), ("critic/rewards", rewards), ("response_length", lengths))
        for statistic, of in (("mean", fmean), ("max", max), ("min", min))
    }


def outcome_fractions(groups: Sequence[Group]) -> dict[str, float]:
    """Return the fraction of the rollouts with each outcome of grading, as `relift/outcome/NAME`."""
    rollouts = [rollout.info for group in groups for rollout in group.rollouts]
    outcomes = Counter(outcome for info in rollouts if isinstance(outcome := info.get("outcome"), str))
    return {f"relift/outcome/{name}": count / len(rollouts) for name, count in outcomes.items()}


def reward_columns(keys: Sequence[str]) -> dict[str, list[Any]]:
    """Return what the reward function said of rollouts, a column for each name, None where it said nothing.

    Args:
        keys: of the rows in TransferQueue.
    """
    data = tq.kv_batch_get(keys=list(keys), partition_id="train", select_fields=["extra_fields"])
    infos = [fields.get("reward_extra_info") or {} for fields in data.pop("extra_fields").tolist()]
    names = dict.fromkeys(name for info in infos for name in info)
    return {name: [info.get(name) for info in infos] for name in names}


def loss_shares(metrics: Mapping[str, float], weight: float) -> dict[str, float]:
    """Return the share of each role's part in the loss of the RL update, by absolute values, if it has several.

    Args:
        metrics: of the update; each role's part is `actor/ROLE_loss`.
        weight: of demonstrations in its last mini-batch; 0: there are none.
    """
    roles = {role.name.lower() for role in Role}
    parts = {role: abs(metrics[f"actor/{role}_loss"]) for role in roles if f"actor/{role}_loss" in metrics}
    if weight:
        parts.setdefault("own", abs(metrics["actor/loss"]))
        parts["demonstration"] = parts.get("demonstration", 0.0) + weight * abs(metrics["relift/sft_loss"])
    total = sum(parts.values())
    return (
        {f"actor/{role}_loss_share": part / total for role, part in parts.items()} if len(parts) > 1 and total else {}
    )


def _tag(rollout: GradedRollout, sibling: dict[str, Any]) -> dict[str, Any]:
    """Return what verl's trainer reads of a row without fetching it; what is not its own is its group's."""
    return {
        **sibling,
        "prompt_len": len(rollout.prompt_ids),
        "response_len": rollout.tokens,
        "seq_len": len(rollout.prompt_ids) + rollout.tokens,
        "forced": 0,
        "truncated": False,
        "added": True,
    }


def _columns(added: Sequence[tuple[Group, GradedRollout]], config: DictConfig) -> TensorDict:
    """Return the columns of a rollout. The mask is 0: verl's policy loss is of what the policy wrote."""
    questions = [group.question for group, _ in added]
    rollouts = [rollout for _, rollout in added]
    prompts = [torch.tensor(rollout.prompt_ids) for rollout in rollouts]
    responses = [torch.from_numpy(rollout.token_ids) for rollout in rollouts]
    sequences = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    masks = _jagged([torch.zeros_like(response) for response in responses])
    scores = [torch.zeros(len(response)) for response in responses]
    for rollout, score in zip(rollouts, scores, strict=True):
        score[-1] = rollout.reward
    compared_with = [
        question.draw if rollout.counts_in_mean else rollout.key
        for question, rollout in zip(questions, rollouts, strict=True)
    ]
    fields = {
        "prompts": _jagged(prompts),
        "responses": _jagged(responses),
        "input_ids": _jagged(sequences),
        "position_ids": _jagged([torch.arange(len(ids)) for ids in sequences]),
        "response_mask": masks,
        "loss_mask": masks,
        "roles": _jagged(
            [torch.full_like(r, int(rollout.role)) for rollout, r in zip(rollouts, responses, strict=True)]
        ),
        "rm_scores": _jagged(scores),
        "num_turns": torch.full((len(added),), 2),
        "uid": NonTensorStack(*compared_with),
        "extra_fields": NonTensorStack(*[{"reward_extra_info": rollout.info} for rollout in rollouts]),
    }
    if config.actor_rollout_ref.rollout.calculate_log_probs:
        fields["rollout_log_probs"] = _jagged([torch.zeros(len(response)) for response in responses])
    if config.trainer.get("rollout_data_dir"):
        fields["reward_model"] = NonTensorStack(*[{"ground_truth": question.ground_truth} for question in questions])
        fields["data_source"] = NonTensorStack(*[question.data_source for question in questions])
    return TensorDict(fields, batch_size=[len(added)])


def _jagged(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)
