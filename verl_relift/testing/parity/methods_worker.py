"""Run one rank of the updates of methods on a CPU: `methods_worker MODEL OUTPUT TP PP CASES`.

CASES is JSON: a list of groups `method` of the configuration, each with `coefficients` by the name of the role, and
with `splice`, the weight of a batch of demonstrations that joins the update, where it has one; `heads` says that
responses begin with heads of solutions. The worker writes losses and gradients by case and split, as `engine_worker`
does.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import verl  # noqa: F401  loads the platform plugin
from verl.utils import tensordict_utils as tu

from ...actor.losses import all_terms
from ...actor.roles import role_loss, role_tokens_counted
from ...actor.splice import accumulate_both
from ...actor.worker import _engine_loss
from ...methods import read_method
from ...types import Role
from .batch import SPLITS, VOCABULARY, hint_lengths, joined_rows, make_batch, row_rewards
from .engine_worker import build_engine, gradients, loss_and_gradients, policy_inputs, to_tensordict


def update(engine, max_tokens: int, case: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss of one update and its gradient.

    Args:
        engine: this rank's engine.
        max_tokens: tokens per micro-batch.
        case: one of the cases of the command line.
    """
    cls, settings = read_method(case["method"])
    weights = cls.token_weights(settings)
    data, loss = policy_inputs(engine, max_tokens)
    splice = case.get("splice")
    if case.get("heads"):
        _give_heads(engine, data)
    elif splice is None:
        _join(engine, data)
    loss = partial(
        role_loss,
        loss,
        weights,
        all_terms(weights, cls.terms(settings)),
        {Role[name]: value for name, value in case["coefficients"].items()},
        config=loss.keywords["config"],
        vocabulary=VOCABULARY,
    )
    with role_tokens_counted(engine):
        if splice is None:
            return gradients(engine, data, loss)
        sft = partial(_engine_loss, entropy_coeff=0.0, weight=splice, token_weight=weights.get(Role.DEMONSTRATION))
        return loss_and_gradients(engine, accumulate_both(engine, data, loss, to_tensordict(engine, max_tokens), sft))


def _join(engine, data) -> None:
    """Make demonstrations of some rows of `data`, as a trainer writes them."""
    rank, size = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    responses = make_batch()[1][rank::size]
    joined = [row in joined_rows() for row in range(len(make_batch()[1]))][rank::size]
    rewards = row_rewards()[rank::size]
    jagged = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    pairs = list(zip(responses, joined, strict=True))
    data["response_mask"] = data["loss_mask"] = jagged([torch.full_like(r, int(not demo)) for r, demo in pairs])
    data["roles"] = jagged([torch.full_like(r, Role.DEMONSTRATION if demo else Role.OWN) for r, demo in pairs])
    data["rm_scores"] = jagged([_at_end(len(r), reward) for r, reward in zip(responses, rewards, strict=True)])
    tu.assign_non_tensor(data, calculate_entropy=True)


def _give_heads(engine, data) -> None:
    """Let the responses of `data` begin with heads, as the rollout worker writes them."""
    rank, size = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    jagged = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    lengths = zip(make_batch()[1][rank::size], hint_lengths()[rank::size], strict=True)
    masks = [(torch.arange(len(response)) >= head).long() for response, head in lengths]
    data["response_mask"] = data["loss_mask"] = jagged(masks)
    data["roles"] = jagged([torch.where(mask.bool(), int(Role.CONTINUATION), int(Role.HINT)) for mask in masks])
    tu.assign_non_tensor(data, calculate_entropy=True)


def _at_end(length: int, reward: float) -> torch.Tensor:
    scores = torch.zeros(length)
    scores[-1] = reward
    return scores


def main() -> None:
    """Run the command line."""
    model, output, tp, pp = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    cases = json.loads(sys.argv[5])
    dist.init_process_group("cpu:gloo")
    engine = build_engine(model, tp, pp)
    with engine.train_mode():
        made = [{max_tokens: update(engine, max_tokens, case) for max_tokens in SPLITS} for case in cases]
    if engine.is_mp_src_rank_with_outputs():
        torch.save({"cases": made}, output / f"{engine.get_data_parallel_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
