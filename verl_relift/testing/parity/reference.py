"""Expected log-probs, entropies and losses of the batch, by Hugging Face and plain PyTorch alone."""

from collections.abc import Callable
from functools import partial

import torch

from .batch import (
    ENTROPY_COEFF,
    HINT_COEFF,
    OWN_COEFF,
    SPLICE_WEIGHT,
    hint_lengths,
    make_batch,
    make_policy_inputs,
)


def log_probs_and_entropies(model: torch.nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Run `model` on each sequence of the batch by itself.

    Returns:
        (log-probs of the next token, entropies of its distribution). One tensor per sequence; with L tokens of prompt
        and response the shapes are (L - 1,) and (L,).
    """
    log_probs, entropies = [], []
    for prompt, response in zip(*make_batch(), strict=True):
        ids = torch.cat([prompt, response])
        distribution = torch.log_softmax(model(input_ids=ids[None]).logits[0], -1)
        log_probs.append(distribution[:-1].gather(1, ids[1:, None])[:, 0])
        entropies.append(-(distribution.exp() * distribution).sum(-1))
    return log_probs, entropies


def supervised_loss(model: torch.nn.Module) -> torch.Tensor:
    """Sum the loss of all demonstration tokens, entropy term included, and divide by their number."""
    log_probs, entropies = log_probs_and_entropies(model)
    total, tokens = 0.0, 0
    for prompt, response, log_prob, entropy in zip(*make_batch(), log_probs, entropies, strict=True):
        first, last = len(prompt) - 1, len(prompt) + len(response) - 1
        total = total - log_prob[first:last].sum() - ENTROPY_COEFF * entropy[first:last].sum()
        tokens += len(response)
    return total / tokens


def policy_loss(model: torch.nn.Module, reusing: bool = False) -> torch.Tensor:
    """Average GRPO's clipped objective over all response tokens, with verl's dual clipping at 3.

    Args:
        model: the policy.
        reusing: take the policy's own log-probs as the old ones.
    """
    total, tokens = 0.0, 0
    log_probs, _ = log_probs_and_entropies(model)
    for prompt, response, log_prob, old, advantage in zip(*make_batch(), log_probs, *make_policy_inputs(), strict=True):
        first, last = len(prompt) - 1, len(prompt) + len(response) - 1
        old = log_prob[first:last].detach() if reusing else old
        ratio = (log_prob[first:last] - old).clamp(-20, 20).exp()
        loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
        total = total + torch.where(advantage < 0, torch.minimum(loss, -3.0 * advantage), loss).sum()
        tokens += len(response)
    return total / tokens


def spliced_loss(model: torch.nn.Module, reusing: bool = False) -> torch.Tensor:
    """Add the weighted supervised loss to the policy loss, so that the gradient is their weighted sum."""
    return policy_loss(model, reusing) + SPLICE_WEIGHT * supervised_loss(model)


def guided_loss(model: torch.nn.Module) -> torch.Tensor:
    """Weigh tokens by who wrote them: half of each response is a hint, which the policy continues.

    The clipped objective of the continuations, each advantage times 1 - p, averaged over all continuation tokens; plus
    -p (1 - p) log p of the hints, averaged over all hint tokens. No gradient flows through a weight.
    """
    own, hints, own_tokens, hint_tokens = 0.0, 0.0, 0, 0
    log_probs, _ = log_probs_and_entropies(model)
    rows = zip(*make_batch(), log_probs, *make_policy_inputs(), hint_lengths(), strict=True)
    for prompt, response, log_prob, old, advantage, head in rows:
        log_prob = log_prob[len(prompt) - 1 : len(prompt) + len(response) - 1]
        p = log_prob.detach().exp()
        hints = hints - (p * (1 - p) * log_prob)[:head].sum()
        weighted = (advantage * (1 - p))[head:]
        ratio = (log_prob - old).clamp(-20, 20).exp()[head:]
        loss = torch.maximum(-weighted * ratio, -weighted * ratio.clamp(0.8, 1.2))
        own = own + torch.where(weighted < 0, torch.minimum(loss, -3.0 * weighted), loss).sum()
        own_tokens += len(response) - head
        hint_tokens += head
    return OWN_COEFF * own / own_tokens + HINT_COEFF * hints / hint_tokens


# By the name under which `engine_worker` writes its own.
LOSSES: dict[str, Callable[[torch.nn.Module], torch.Tensor]] = {
    "supervised": supervised_loss,
    "policy": policy_loss,
    "policy_reusing": partial(policy_loss, reusing=True),
    "spliced": spliced_loss,
    "spliced_reusing": partial(spliced_loss, reusing=True),
    "guided": guided_loss,
}
