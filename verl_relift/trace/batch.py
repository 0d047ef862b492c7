"""Batches for the worker, as the trainer makes them, of random tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from ..actor.batch import demonstration_batch, jagged
from ..checks import chosen_method
from ..demonstrations.buffer import Demonstration
from ..types import Role


def rollouts(lengths: Sequence[int], micro_batches: int, vocabulary: int) -> TensorDict:
    """Return sequences of which the second half is a response.

    Args:
        lengths: of the sequences of a micro-batch.
        micro_batches: how many of them.
        vocabulary: number of token ids.
    """
    ids = [torch.randint(2, vocabulary, (length,)) for _ in range(micro_batches) for length in lengths]
    responses = [row[len(row) // 2 :] for row in ids]
    mask = jagged([torch.ones_like(row) for row in responses])
    return tu.get_tensordict(
        {
            "input_ids": jagged(ids),
            "position_ids": jagged([torch.arange(len(row)) for row in ids]),
            "prompts": jagged([row[: len(row) // 2] for row in ids]),
            "responses": jagged(responses),
            "response_mask": mask,
            "loss_mask": mask,
        },
        {"temperature": 1.0},
    )


def policy_batch(data: TensorDict, config: DictConfig, ranks: int, old: bool) -> TensorDict:
    """Return `data` with what the RL update needs, as one mini-batch.

    Args:
        data: a rank's share of the batch; it is changed.
        config: the composed configuration.
        ranks: data-parallel size.
        old: whether old log-probs had a pass of their own.
    """
    lengths = data["responses"].offsets().diff().tolist()
    data["advantages"] = jagged([torch.ones(length) for length in lengths])
    data["rollout_log_probs"] = jagged([torch.zeros(length) for length in lengths])
    if old:
        data["old_log_probs"] = jagged([torch.zeros(length) for length in lengths])
    if config.actor_rollout_ref.actor.use_kl_loss:
        data["ref_log_prob"] = jagged([torch.zeros(length) for length in lengths])
    method, settings = chosen_method(config)
    if method.writes_roles():
        data["roles"] = jagged([torch.full((length,), Role.OWN) for length in lengths])
    if method.reads_rewards:
        data["rm_scores"] = jagged([torch.ones(length) for length in lengths])
    actor, rows = config.actor_rollout_ref.actor, len(data) * ranks
    weighs = {"coefficients": {}} if method.weighs_tokens(settings) else {}
    tu.assign_non_tensor(
        data,
        calculate_entropy=bool(actor.calculate_entropy or actor.entropy_coeff),
        global_batch_size=rows,
        mini_batch_size=rows,
        epochs=1,
        seed=1,
        dataloader_kwargs={"shuffle": False},
        **weighs,
    )
    return data


def demonstrations(
    lengths: Sequence[int], micro_batches: int, max_tokens: int, ranks: int, **settings: Any
) -> TensorDict:
    """Return demonstrations of which the second half is a solution.

    Args:
        lengths: of the sequences of a micro-batch.
        micro_batches: how many of them.
        max_tokens: tokens of a micro-batch on one GPU.
        ranks: data-parallel size.
        settings: further entries for the worker.
    """
    rows = [
        Demonstration("question", (2,) * (length // 2), (2,) * (length - length // 2), 0)
        for _ in range(micro_batches)
        for length in lengths
    ]
    data = demonstration_batch(rows, max_tokens, **settings)
    tu.assign_non_tensor(data, global_batch_size=len(rows) * ranks)
    return data
