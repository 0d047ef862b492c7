"""Losses by role as pure functions, recomputed by hand on two rows."""

import math

import pytest
import torch

from verl_relift.actor.losses import all_terms, guided_terms, weigh_advantages
from verl_relift.methods.weight import Term, TokenStatistics
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
    terms = guided_terms(statistics(), ROLES, all_terms(weights, ()), counts, {Role.DEMONSTRATION: 0.5})
    assert terms[Role.HINT].item() == pytest.approx(-math.log(0.5) / 4)
    assert terms[Role.DEMONSTRATION].item() == pytest.approx(-0.5 * 0.6 * math.log(0.6) / 2)


def test_a_weight_is_differentiated_unless_it_detaches_itself():
    counts = [1] * len(Role)
    for detach, expected in ((True, 0.5), (False, 0.5 + 0.5 * math.log(0.5))):
        token = statistics(requires_grad=True)

        def weight(token, detach=detach):
            return token.log_prob.detach().exp() if detach else token.log_prob.exp()

        guided_terms(token, ROLES, all_terms({Role.HINT: weight}, ()), counts, {})[Role.HINT].backward()
        # d/dl of -w(l) l at l = log 0.5 is -(w + w' l); w = w' = 0.5.
        assert token.log_prob.grad.tolist() == pytest.approx([-expected, 0.0, 0.0, 0.0, 0.0])


def test_terms_add_up_over_micro_batches():
    terms, counts = all_terms({Role.HINT: lambda token: token.log_prob.exp()}, ()), [3] * len(Role)
    roles = torch.tensor([Role.HINT, Role.OWN, Role.HINT, Role.HINT, Role.OWN])
    whole = guided_terms(statistics(), roles, terms, counts, {})[Role.HINT]
    parts = []
    for share in (slice(0, 3), slice(3, 5)):
        log_prob = PROBABILITIES.log()[share]
        part = TokenStatistics(log_prob, log_prob, None, ADVANTAGES[share])
        parts.append(guided_terms(part, roles[share], terms, counts, {})[Role.HINT])
    assert sum(parts).item() == pytest.approx(whole.item())


def test_a_role_that_does_not_occur_has_no_term():
    terms = all_terms({Role.REPLAY: lambda _: 1.0}, ())
    assert guided_terms(statistics(), ROLES, terms, [0] * len(Role), {}) == {}


def test_terms_of_a_role_add_up_and_a_joint_one_is_divided_as_rollouts_are():
    counts = [0, 1, 0, 0, 0]
    losses = [
        Term(Role.DEMONSTRATION, lambda token: token.log_prob),
        Term(Role.DEMONSTRATION, lambda token: token.advantage, joint=True),
    ]
    terms = guided_terms(
        statistics(), ROLES, losses, counts, {Role.DEMONSTRATION: 0.5}, lambda values, chosen: values.sum() / 10
    )
    assert terms[Role.DEMONSTRATION].item() == pytest.approx(0.5 * (math.log(0.6) + 2.0 / 10))
