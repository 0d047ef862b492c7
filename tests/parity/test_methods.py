"""Updates of methods through verl's engine against their papers' formulas in plain PyTorch, in fp32 on CPU processes.

Each formula is written out here a second time, over the sequences of the batch one by one, with gradients from Hugging
Face's model: another program than the one that trains. Any split into micro-batches, tensor and data parallelism must
give the same loss and gradient.
"""

import json
import math

import pytest
import torch

from verl_relift.testing.parity.batch import (
    SPLITS,
    VOCABULARY,
    hint_lengths,
    joined_rows,
    make_batch,
    make_policy_inputs,
    row_rewards,
)
from verl_relift.testing.parity.ranks import run_ranks, save_model
from verl_relift.testing.parity.reference import log_probs_and_entropies, policy_loss


class Row:
    """One sequence: what the formulas need of its response tokens."""

    def __init__(self, number, prompt, response, log_prob, entropy, old, advantage):
        first, last = len(prompt) - 1, len(prompt) + len(response) - 1
        self.log_p, self.entropy = log_prob[first:last], entropy[first:last].detach()
        self.p, self.old, self.advantage = self.log_p.exp(), old.exp(), advantage
        self.demonstration, self.right = number in joined_rows(), row_rewards()[number] == 1.0
        self.head = hint_lengths()[number]

    def clipped(self) -> torch.Tensor:
        """GRPO's loss of each token, with verl's clipping at 0.2 and dual clipping at 3."""
        ratio = (self.log_p - self.old.log()).clamp(-20, 20).exp()
        loss = torch.maximum(-self.advantage * ratio, -self.advantage * ratio.clamp(0.8, 1.2))
        return torch.where(self.advantage < 0, torch.minimum(loss, -3.0 * self.advantage), loss)

    def luffy(self, gamma: float = 0.1) -> torch.Tensor:
        return -self.advantage * self.p / (self.p + gamma)


def rows_of(model) -> list[Row]:
    log_probs, entropies = log_probs_and_entropies(model)
    columns = zip(*make_batch(), log_probs, entropies, *make_policy_inputs(), strict=True)
    return [Row(number, *row) for number, row in enumerate(columns)]


def split(model) -> tuple[list[Row], list[Row]]:
    rows = rows_of(model)
    return [row for row in rows if not row.demonstration], [row for row in rows if row.demonstration]


def mean(losses: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(losses).mean()


def luffy(model, coeff: float) -> torch.Tensor:
    own, demonstrations = split(model)
    return mean([row.clipped() for row in own] + [coeff * row.luffy() for row in demonstrations])


def rl_plus(model, written: float) -> torch.Tensor:
    own, demonstrations = split(model)
    mixed = [
        -row.advantage * (1 - row.p.detach()).sqrt() * 2 * row.p / (row.old + (row.old + written) / 2)
        for row in demonstrations
    ]
    return mean([row.clipped() for row in own] + mixed)


def srft(model, coeff: float, sign: float) -> torch.Tensor:
    own, demonstrations = split(model)
    sft = mean([-coeff * (sign * row.entropy).exp() * row.log_p for row in demonstrations])
    signed = [-0.1 * row.entropy.exp() * row.log_p if row.right else row.log_p.clamp(min=math.log(1e-4)) for row in own]
    return sft + mean(signed + [row.luffy() for row in demonstrations])


def hpt(model, coeff: float) -> torch.Tensor:
    own, demonstrations = split(model)
    return mean([row.clipped() for row in own]) + coeff * mean([-row.log_p for row in demonstrations])


def factorial(model, weight, joint: bool) -> torch.Tensor:
    own, demonstrations = split(model)
    weighed = [-weight(row.p.detach()) * row.log_p for row in demonstrations]
    if not joint:
        return mean([row.clipped() for row in own]) + mean(weighed)
    return mean(
        [row.clipped() for row in own] + [r.advantage * w for r, w in zip(demonstrations, weighed, strict=True)]
    )


def chord(model, mu: float, weight) -> torch.Tensor:
    return (1 - mu) * policy_loss(model) + mu * mean([-weight(row.p.detach()) * row.log_p for row in rows_of(model)])


def prefix_rft(model, share: float, answers: int) -> torch.Tensor:
    losses = []
    for row in rows_of(model):
        kept = torch.zeros(row.head)
        kept[torch.topk(row.entropy[: row.head], math.ceil(share * row.head)).indices] = 1.0
        losses += [kept * row.clipped()[: row.head] / answers, row.clipped()[row.head :]]
    return mean(losses)


def uft(model, coeff: float) -> torch.Tensor:
    rows = rows_of(model)
    given = mean([-row.log_p[: row.head] for row in rows])
    return mean([row.clipped()[row.head :] for row in rows]) + coeff * given


CASES = {
    "prefix_rft": (
        {"method": {"name": "prefix_rft", "entropy_share": 0.4, "answers": 2}, "coefficients": {}, "heads": True},
        lambda model: prefix_rft(model, 0.4, 2),
    ),
    "uft": (
        {"method": {"name": "uft"}, "coefficients": {"HINT": 0.3}, "heads": True},
        lambda model: uft(model, 0.3),
    ),
    "luffy": (
        {"method": {"name": "luffy", "coeff": 0.5}, "coefficients": {"DEMONSTRATION": 0.5}},
        lambda model: luffy(model, 0.5),
    ),
    "rl_plus, the code's mixture": (
        {"method": {"name": "rl_plus"}, "coefficients": {}},
        lambda model: rl_plus(model, 1.0),
    ),
    "rl_plus, the paper's mixture": (
        {"method": {"name": "rl_plus", "behavior": "uniform"}, "coefficients": {}},
        lambda model: rl_plus(model, 1.0 / VOCABULARY),
    ),
    "srft, the paper's sign": ({"method": {"name": "srft"}, "coefficients": {}}, lambda model: srft(model, 0.5, -1.0)),
    "srft, the code's sign": (
        # Four nats make a weight of 55: with the paper's coefficient, rounding in fp32 is more than 1e-6.
        {"method": {"name": "srft", "sft_entropy": "positive", "sft_coeff": 0.01}, "coefficients": {}},
        lambda model: srft(model, 0.01, 1.0),
    ),
    "hpt": ({"method": {"name": "hpt"}, "coefficients": {"DEMONSTRATION": 0.3}}, lambda model: hpt(model, 0.3)),
    "factorial, spliced": (
        {"method": {"name": "factorial", "token_weight": "shaped"}, "coefficients": {}},
        lambda model: factorial(model, lambda p: 0.1 * p / (p + 0.1) ** 2, joint=False),
    ),
    "factorial, in the mean": (
        {"method": {"name": "factorial", "placement": "in_mean", "token_weight": "phi"}, "coefficients": {}},
        lambda model: factorial(model, lambda p: p * (1 - p), joint=True),
    ),
    "chord_mu": (
        {"method": {"name": "chord_mu"}, "coefficients": {"OWN": 0.1}, "splice": 0.9},
        lambda model: chord(model, 0.9, torch.ones_like),
    ),
    "chord_phi": (
        {"method": {"name": "chord_phi"}, "coefficients": {"OWN": 0.9}, "splice": 0.1},
        lambda model: chord(model, 0.1, lambda p: p * (1 - p)),
    ),
    "chord with DFT's weight": (
        {
            "method": {"name": "chord_mu", "sft": {"token_weight": "probability"}},
            "coefficients": {"OWN": 0.5},
            "splice": 0.5,
        },
        lambda model: chord(model, 0.5, lambda p: p),
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A function from a layout to (model, what each replica wrote), run once per layout."""
    folder = tmp_path_factory.mktemp("model")
    model, made = save_model("qwen2", folder), {}
    cases = json.dumps([case for case, _ in CASES.values()])

    def get(layout: str):
        if layout not in made:
            made[layout] = None  # so that a failed start is not repeated by every test
            made[layout] = run_ranks("methods_worker", folder, tmp_path_factory.mktemp(layout) / "out", layout, cases)
        assert made[layout] is not None, f"{layout} did not run; see the first failure"
        return model, made[layout]

    return get


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layout", ["TP1", *(pytest.param(one, marks=pytest.mark.slow) for one in ("TP2", "DP2"))])
def test_loss_and_gradient_are_the_formulas_for_any_split(results, layout, name):
    model, replicas = results(layout)
    model.zero_grad()
    loss = CASES[name][1](model)
    loss.backward()
    expected = {n: parameter.grad for n, parameter in model.named_parameters()}
    place = list(CASES).index(name)
    for replica in replicas:
        assert set(replica["cases"][place]) == set(SPLITS)
        for max_tokens, (ours, gradients) in replica["cases"][place].items():
            assert ours == pytest.approx(loss.item(), rel=1e-6, abs=1e-6), max_tokens
            for parameter, gradient in expected.items():
                torch.testing.assert_close(
                    gradients[parameter],
                    gradient,
                    atol=1e-6,
                    rtol=0,
                    msg=lambda m, p=parameter, t=max_tokens: f"{p}, split {t}: {m}",
                )
