"""The loss of a head that the policy was given, as pure functions of tokens."""

from typing import TYPE_CHECKING

from ..types import Role
from .weight import TokenStatistics

if TYPE_CHECKING:
    from torch import Tensor


def highest_entropy(token: TokenStatistics, role: Role, share: float) -> "Tensor":
    """Return 1.0 for the tokens of a role with the highest entropy of their own sequence, 0.0 for all others; [tokens].

    Of a sequence with n tokens of the role it is ceil(share n), so that it does not depend on which sequences share a
    micro-batch. Of equal entropies, those that come first.
    """
    import torch

    kept = torch.zeros_like(token.advantage)
    places = torch.nonzero(token.roles == role).squeeze(-1)
    if not len(places):
        return kept
    by_entropy = places[torch.argsort(token.entropy.detach()[places], descending=True, stable=True)]
    ordered = by_entropy[torch.argsort(token.rows[by_entropy], stable=True)]  # row by row, from the highest on
    rows = token.rows[ordered]
    counts = torch.bincount(rows)
    rank = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    wanted = torch.ceil(share * counts.double() - 1e-9)
    kept[ordered[rank < wanted[rows]]] = 1.0
    return kept


def clipped_ratio(token: TokenStatistics, advantage: "Tensor", low: float, high: float, dual: float) -> "Tensor":
    """Return max(-A r, -A clip(r, 1 - low, 1 + high)), at most -A dual where A is negative; [tokens].

    PPO with dual clip, as verl has it for what the policy writes; r is the ratio to the policy before the update.
    """
    import torch

    ratio = torch.exp(torch.clamp(token.log_prob - token.old_log_prob, -20.0, 20.0))
    loss = torch.maximum(-advantage * ratio, -advantage * torch.clamp(ratio, 1.0 - low, 1.0 + high))
    return torch.where(advantage < 0.0, torch.minimum(loss, -advantage * dual), loss)
