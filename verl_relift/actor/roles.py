"""The policy loss of a method that weighs tokens by who wrote them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import response_from_nested

from ..methods.weight import TokenStatistics, Weight
from ..types import Role
from .batch import jagged_like
from .losses import guided_terms, weigh_advantages


@contextmanager
def role_tokens_counted(engine) -> Iterator[None]:
    """While active, batches with a column `roles` that `engine` trains on know how many tokens each role has.

    verl counts the tokens of a global batch in the same place and way, for the normalizer of its own loss.
    """
    forward_backward_batch = engine.forward_backward_batch

    def count_and_run(data: TensorDict, loss_function: Callable, forward_only: bool = False):
        if "roles" in data:
            counts = torch.bincount(data["roles"].values(), minlength=len(Role)).to(get_device_id())
            torch.distributed.all_reduce(counts, group=engine.get_data_parallel_group())
            tu.assign_non_tensor(data, role_num_tokens=tuple(counts.tolist()))
        return forward_backward_batch(data, loss_function, forward_only)

    engine.forward_backward_batch = count_and_run
    try:
        yield
    finally:
        del engine.forward_backward_batch  # the class's own again


def role_loss(
    policy_loss: Callable,
    weights: Mapping[Role, Weight],
    coefficients: Mapping[Role, float],
    model_output: dict,
    data: TensorDict,
    dp_group=None,
):
    """Return verl's policy loss on what the policy wrote, plus a term for each other role that has a weight.

    Args:
        policy_loss: verl's, in the form that its engine calls. Weights of own tokens and continuations multiply the
            advantages in it; the coefficient of `Role.OWN` multiplies all of it, entropy and KL terms included.
        data: as verl's engine has it, with jagged `roles` [rows, response tokens] where the method guides what is
            sampled; without them every token is the policy's own.
    """
    log_probs = response_from_nested(model_output["log_probs"], data["response_mask"])
    entropy = model_output.get("entropy")
    entropy = None if entropy is None else response_from_nested(entropy, data["response_mask"]).values()
    advantages = data["advantages"]
    statistics = TokenStatistics(log_probs.values(), data["old_log_probs"].values(), entropy, advantages.values())
    roles = data["roles"].values() if "roles" in data else torch.full_like(advantages.values(), Role.OWN).long()
    data["advantages"] = jagged_like(weigh_advantages(statistics, roles, weights), advantages)
    loss, metrics = policy_loss(model_output=model_output, data=data, dp_group=dp_group)
    loss = coefficients.get(Role.OWN, 1.0) * loss
    counts = tu.get_non_tensor_data(data, key="role_num_tokens", default=None)
    if counts is None:
        return loss, metrics
    # The engine averages gradients over data-parallel ranks.
    dp_size = data["dp_size"]
    for role, term in guided_terms(statistics, roles, weights, counts, coefficients).items():
        loss = loss + term * dp_size
        metrics[f"{role.name.lower()}_loss"] = Metric(AggregationType.SUM, term.detach() * dp_size)
    return loss, metrics
