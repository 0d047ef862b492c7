"""Losses by role as pure functions, recomputed by hand on two rows."""

import math

import pytest
import torch

from verl_relift.actor.losses import guided_terms, weigh_advantages
from verl_relift.methods.weight import TokenStatistics
from verl_relift.types import Role

# Two rows of three and two tokens, laid end to end.
PROBABILITIES = torch.tensor([0.5, 0.1, 0.9, 0.2, 0.6])
ROLES = torch.tensor([Role.HINT, Role.CONTINUATION, Role.CONTINUATION, Role.OWN, Role.DEMONSTRATION])
ADVANTAGES = torch.tensor([1.0, 1.0, 1.0, -0.5, 2.0])


def statistics(requires_grad: bool = False) -> TokenStatistics:
    log_prob = PROBABILITIES.log().requires_grad_(requires_grad)
    return TokenStatistics(log_prob, log_prob.detach(), entropy=None, advantage=ADVANTAGES)


def test_weights_multiply_the_advantages_of_what_the_policy_wrote():
    weights = {Role.OWN: lambda token: token.log_prob.exp(), Role.HINT: lambda token: 100.0 * token.log_prob}
    weighed = weigh_advantages(statistics(requires_grad=True), ROLES, weights)
    assert weighed.tolist() == pytest.approx([1.0, 1.0, 1.0, -0.5 * 0.2, 2.0])
    assert not weighed.requires_grad


def test_each_role_has_its_own_sum_count_and_coefficient():
    weights = {Role.HINT: lambda _: 1.0, Role.DEMONSTRATION: lambda token: token.log_prob.detach().exp()}
    counts = [0] * len(Role)
    counts[Role.HINT], counts[Role.DEMONSTRATION] = 4, 2  # of the global batch: more than these two rows have
    terms = guided_terms(statistics(), ROLES, weights, counts, {Role.DEMONSTRATION: 0.5})
    assert terms[Role.HINT].item() == pytest.approx(-math.log(0.5) / 4)
    assert terms[Role.DEMONSTRATION].item() == pytest.approx(-0.5 * 0.6 * math.log(0.6) / 2)


def test_a_weight_is_differentiated_unless_it_detaches_itself():
    counts = [1] * len(Role)
    for detach, expected in ((True, 0.5), (False, 0.5 + 0.5 * math.log(0.5))):
        token = statistics(requires_grad=True)

        def weight(token, detach=detach):
            return token.log_prob.detach().exp() if detach else token.log_prob.exp()

        guided_terms(token, ROLES, {Role.HINT: weight}, counts, {})[Role.HINT].backward()
        # d/dl of -w(l) l at l = log 0.5 is -(w + w' l); w = w' = 0.5.
        assert token.log_prob.grad.tolist() == pytest.approx([-expected, 0.0, 0.0, 0.0, 0.0])


def test_terms_add_up_over_micro_batches():
    weights, counts = {Role.HINT: lambda token: token.log_prob.exp()}, [3] * len(Role)
    roles = torch.tensor([Role.HINT, Role.OWN, Role.HINT, Role.HINT, Role.OWN])
    whole = guided_terms(statistics(), roles, weights, counts, {})[Role.HINT]
    parts = []
    for share in (slice(0, 3), slice(3, 5)):
        log_prob = PROBABILITIES.log()[share]
        part = TokenStatistics(log_prob, log_prob, None, ADVANTAGES[share])
        parts.append(guided_terms(part, roles[share], weights, counts, {})[Role.HINT])
    assert sum(parts).item() == pytest.approx(whole.item())


def test_a_role_that_does_not_occur_has_no_term():
    assert guided_terms(statistics(), ROLES, {Role.REPLAY: lambda _: 1.0}, [0] * len(Role), {}) == {}
