"""Each method's token losses on two rows, with gradients, against their papers' formulas worked out by hand."""

import math
from pathlib import Path

import pytest
import torch

from tests.unit.methods.steps import resources
from verl_relift.actor.losses import all_terms, guided_terms, supervised_loss, weigh_advantages
from verl_relift.methods import read_method
from verl_relift.methods.weight import TokenStatistics
from verl_relift.types import Role

# A demonstration of two tokens and a rollout of two, laid end to end; the rollout is wrong.
P = [0.3, 0.01, 0.5, 0.00001]
OLD = [0.2, 0.02, 0.4, 0.00002]
ENTROPY = [0.7, 1.3, 0.2, 2.0]
ADVANTAGE = [0.75, 0.75, -0.25, -0.25]
REWARD = [1.0, 1.0, 0.0, 0.0]
ROLES = torch.tensor([Role.DEMONSTRATION] * 2 + [Role.OWN] * 2)
COUNTS = (2, 2, 0, 0, 0)
VOCABULARY = 1000


def statistics(reward: list[float] = REWARD) -> TokenStatistics:
    as_tensor = lambda values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    return TokenStatistics(
        as_tensor(P).log().requires_grad_(),
        as_tensor(OLD).log(),
        as_tensor(ENTROPY).requires_grad_(),
        as_tensor(ADVANTAGE),
        vocabulary=VOCABULARY,
        roles=ROLES,
        reward=as_tensor(reward),
    )


def terms_of(token: TokenStatistics, name: str, **settings) -> tuple[float, list[float]]:
    """The method's terms, added up, and their derivatives by log p of each token."""
    cls, built = read_method({"name": name, **settings})
    terms = all_terms(cls.token_weights(built), cls.terms(built))
    coefficients = cls(built, resources(Path())).coefficients(1)

    def joint(losses, chosen):
        return losses.sum() / 4  # one mean over all four tokens

    total = sum(guided_terms(token, ROLES, terms, COUNTS, coefficients, joint).values())
    total.backward()
    return total.item(), token.log_prob.grad.tolist()


def test_luffy():
    value, gradient = terms_of(statistics(), "luffy", coeff=0.5)
    p, q = P[:2]
    assert value == pytest.approx(0.5 / 4 * -0.75 * (p / (p + 0.1) + q / (q + 0.1)), abs=1e-12)
    # d/dlog p of -A p / (p + g) is -A g p / (p + g)^2.
    expected = [-0.5 / 4 * 0.75 * 0.1 * x / (x + 0.1) ** 2 for x in (p, q)]
    assert gradient == pytest.approx([*expected, 0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(("behavior", "written"), [("certain", 1.0), ("uniform", 1 / VOCABULARY)])
def test_rl_plus(behavior, written):
    value, gradient = terms_of(statistics(), "rl_plus", behavior=behavior)
    losses = [
        -0.75 * math.sqrt(1 - p) * 2 * p / (old + (old + written) / 2) for p, old in zip(P[:2], OLD[:2], strict=True)
    ]
    assert value == pytest.approx(sum(losses) / 4, abs=1e-12)
    # The loss is linear in p where sqrt(1 - p) is held, so its derivative by log p is itself.
    assert gradient == pytest.approx([losses[0] / 4, losses[1] / 4, 0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(("sign", "s"), [("negative", -1.0), ("positive", 1.0)])
@pytest.mark.parametrize("right", [False, True])
def test_srft(sign, s, right):
    token = statistics([1.0] * 4 if right else REWARD)
    value, gradient = terms_of(token, "srft", sft_entropy=sign)
    weights = [0.5 * math.exp(s * h) for h in ENTROPY[:2]]
    sft = sum(-w * math.log(p) for w, p in zip(weights, P[:2], strict=True)) / 2
    rl = sum(-0.75 * p / (p + 0.1) for p in P[:2]) / 4
    of_rl = [-0.75 * 0.1 * p / (p + 0.1) ** 2 / 4 for p in P[:2]]
    if right:
        own = [-0.1 * math.exp(h) * math.log(p) / 4 for h, p in zip(ENTROPY[2:], P[2:], strict=True)]
        of_own = [-0.1 * math.exp(h) / 4 for h in ENTROPY[2:]]
    else:
        own = [math.log(0.5) / 4, math.log(1e-4) / 4]  # the second token's probability is below the floor
        of_own = [1 / 4, 0.0]
    assert value == pytest.approx(sft + rl + sum(own), abs=1e-12)
    expected = [-w / 2 + g for w, g in zip(weights, of_rl, strict=True)] + of_own
    assert gradient == pytest.approx(expected, abs=1e-12)
    assert token.entropy.grad is None  # weights are held
    # verl's own loss of rollouts is replaced.
    cls, settings = read_method({"name": "srft"})
    assert weigh_advantages(token, ROLES, cls.token_weights(settings))[2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["hpt", "superrl"])
def test_hpt(name):
    value, gradient = terms_of(statistics(), name, coeff=0.3)
    assert value == pytest.approx(-0.3 * (math.log(P[0]) + math.log(P[1])) / 2, abs=1e-12)
    assert gradient == pytest.approx([-0.15, -0.15, 0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        ({"name": "chord_mu"}, lambda p: 1.0),
        ({"name": "chord_phi"}, lambda p: p * (1 - p)),
        ({"name": "chord_mu", "sft": {"token_weight": "probability"}}, lambda p: p),
        ({"name": "chord_mu", "sft": {"token_weight": "shaped"}}, lambda p: 0.1 * p / (p + 0.1) ** 2),
    ],
)
def test_chord(settings, weight):
    cls, built = read_method(settings)
    token = statistics()
    by_role = cls.token_weights(built)
    weights = by_role[Role.DEMONSTRATION](token) if by_role else 1.0
    loss = supervised_loss(token.log_prob, None, ROLES == Role.DEMONSTRATION, 2, 0.0, weights).loss
    loss.backward()
    assert loss.item() == pytest.approx(sum(-weight(p) * math.log(p) for p in P[:2]) / 2, abs=1e-12)
    assert token.log_prob.grad.tolist() == pytest.approx([-weight(P[0]) / 2, -weight(P[1]) / 2, 0.0, 0.0], abs=1e-12)
    assert all(role is not Role.OWN for role in by_role)


WEIGHTS = {
    "one": lambda p: 1.0,
    "phi": lambda p: p * (1 - p),
    "shaped": lambda p: 0.1 * p / (p + 0.1) ** 2,
    "probability": lambda p: p,
}


@pytest.mark.parametrize("placement", ["spliced", "in_mean", "out_of_mean"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_factorial(placement, weight):
    value, gradient = terms_of(statistics(), "factorial", coeff=0.5, placement=placement, token_weight=weight)
    # A mean of its own over two tokens, or the advantage in one mean over all four.
    scale = 0.5 / 2 if placement == "spliced" else 0.5 * 0.75 / 4
    assert gradient == pytest.approx([*(-scale * WEIGHTS[weight](p) for p in P[:2]), 0.0, 0.0], abs=1e-12)
    if weight == "shaped" and placement != "spliced":
        assert value == pytest.approx(-scale * sum(p / (p + 0.1) for p in P[:2]), abs=1e-12)
    else:
        assert value == pytest.approx(-scale * sum(WEIGHTS[weight](p) * math.log(p) for p in P[:2]), abs=1e-12)


@pytest.mark.parametrize(
    ("method", "combination"),
    [
        ({"name": "hpt"}, {"placement": "spliced", "token_weight": "one"}),
        (
            {"name": "luffy"},
            {"placement": "in_mean", "token_weight": "shaped", "trigger": {"select": "all"}},
        ),
    ],
)
def test_a_combination_has_exactly_the_loss_of_a_published_method(method, combination):
    name = method["name"]
    assert terms_of(statistics(), "factorial", **combination) == terms_of(statistics(), name)


@pytest.mark.parametrize("name", ["relift", "relift_authors", "relift_splice", "regft", "rl_with_sft_loss", "sft"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_weight_of_demonstrations_apart_from_the_rollouts(name, weight):
    cls, built = read_method({"name": name, "sft": {"token_weight": weight}})
    by_role, token = cls.token_weights(built), statistics()
    assert cls.weighs_tokens(built) == (weight != "one")  # without one the RL update is verl's own
    weights = by_role[Role.DEMONSTRATION](token) if by_role else 1.0
    loss = supervised_loss(token.log_prob, None, ROLES == Role.DEMONSTRATION, 2, 0.0, weights).loss
    loss.backward()
    assert token.log_prob.grad.tolist() == pytest.approx([*(-WEIGHTS[weight](p) / 2 for p in P[:2]), 0.0, 0.0])


@pytest.mark.parametrize("name", ["luffy", "rl_plus", "srft"])
def test_without_its_coefficient_nothing_is_added(name):
    cls, settings = read_method({"name": name, "coeff": 0.0})
    token = statistics()
    terms = guided_terms(
        token, ROLES, cls.terms(settings), COUNTS, {Role.DEMONSTRATION: 0.0}, lambda losses, _: losses.sum()
    )
    assert not any(term.item() for term in terms.values())
    assert weigh_advantages(token, ROLES, cls.token_weights(settings)).tolist() == ADVANTAGE
