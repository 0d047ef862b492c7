"""Demonstrations as a batch of verl's engines."""

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from ..demonstrations.buffer import Demonstration


def jagged(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return rows of different lengths as one nested tensor [rows, *]."""
    return torch.nested.as_nested_tensor(list(tensors), layout=torch.jagged)


def jagged_like(values: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Return `values` [elements] in rows of the lengths of `column`, a jagged tensor [rows, *]."""
    lengths = column.offsets().diff()
    # Without the longest length, torch pads each row to as many elements as there are in all rows.
    return torch.nested.nested_tensor_from_jagged(
        values, column.offsets(), min_seqlen=int(lengths.min()), max_seqlen=int(lengths.max())
    )


def demonstration_batch(
    demonstrations: Sequence[Demonstration], max_token_len_per_gpu: int, **settings: Any
) -> TensorDict:
    """Return `demonstrations` unpadded, with the loss on their responses only.

    Args:
        max_token_len_per_gpu: tokens per micro-batch.
        settings: further non-tensor entries, for the worker.

    Returns:
        jagged `input_ids`, `position_ids` and `loss_mask`, each [demonstrations, tokens] int64, and non-tensor
        entries. The temperature is 1: a supervised loss has none.
    """
    prompts = [torch.tensor(d.prompt_ids) for d in demonstrations]
    responses = [torch.tensor(d.response_ids) for d in demonstrations]
    pairs = list(zip(prompts, responses, strict=True))
    input_ids = [torch.cat(pair) for pair in pairs]
    return tu.get_tensordict(
        {
            "input_ids": jagged(input_ids),
            "position_ids": jagged([torch.arange(len(ids)) for ids in input_ids]),
            "loss_mask": jagged([torch.cat([torch.zeros_like(p), torch.ones_like(r)]) for p, r in pairs]),
        },
        non_tensor_dict={
            "temperature": 1.0,
            "global_batch_size": len(demonstrations),
            "use_dynamic_bsz": True,
            "max_token_len_per_gpu": max_token_len_per_gpu,
            **settings,
        },
    )
