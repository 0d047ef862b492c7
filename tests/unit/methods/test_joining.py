"""Methods whose demonstrations join groups, and streams: what they ask for, what they add, and what they count."""

import json

import pytest

from tests.unit.configurations import overridden
from tests.unit.methods.steps import TOKENIZER, group, question, resources
from verl_relift.checks import settings_problems
from verl_relift.methods import read_method
from verl_relift.methods.schedule import RiseAndFall
from verl_relift.methods.stream import Stream
from verl_relift.settings import SettingsError
from verl_relift.types import Prompt, Role

IN_PLACE = ["luffy", "rl_plus", "srft"]
GATED = ["hpt", "superrl"]
PLACEMENTS = ["spliced", "in_mean", "out_of_mean"]


def make(tmp_path, name: str, training_set=(), **group_of_method):
    cls, settings = read_method({"name": name, **group_of_method})
    lent = resources(tmp_path)
    return cls(settings, type(lent)(**{**vars(lent), "rollouts": 4, "training_set": training_set}))


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_demonstration_takes_the_place_of_one_rollout(name, tmp_path):
    method = make(tmp_path, name)
    with_one, without = question(1), question(2, "wrong")
    assert [prompt.samples for prompt in method.prompts([with_one, without], 1)] == [3, None]
    graded = [group(with_one, 0.0, 1.0, 0.0), group(without, 0.0, 0.0, 0.0, 0.0)]
    joined, left = method.edit(graded, 1)
    assert left == graded[1] and joined.rollouts[:-1] == graded[0].rollouts
    row = joined.rollouts[-1]
    assert (row.role, row.reward, row.counts_in_mean, row.key) == (Role.DEMONSTRATION, 1.0, True, "1-000001_3_0")
    assert TOKENIZER.decode(row.token_ids[:-1].tolist()) == "\\boxed{1}" and row.token_ids[-1] == TOKENIZER.eos_token_id
    assert list(row.prompt_ids) == TOKENIZER.encode("1=?") and row.tokens == len(row.token_ids)
    assert method.metrics() == {
        "method/demonstrations_joined": 1.0,
        "method/demonstration_tokens": row.tokens,
        "method/demonstrations_rejected/wrong": 1.0,
    }
    assert method.metrics()["method/demonstrations_joined"] == 0.0  # counts are a step's


@pytest.mark.parametrize("name", [*IN_PLACE, *GATED, "factorial"])
def test_without_its_coefficient_a_method_asks_and_edits_as_grpo(name, tmp_path):
    method = make(tmp_path, name, coeff=0.0)
    asked = [question(1), question(2)]
    graded = [group(one, 0.0, 0.0, 0.0, 0.0) for one in asked]
    assert method.prompts(asked, 1) == [Prompt.bare(one) for one in asked]
    assert method.edit(graded, 1) == graded
    assert method.needs(method.settings).joined_rows == 0


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("rollouts", ["drop", "keep"])
def test_a_gate_opens_on_counts_or_fractions(name, rollouts, tmp_path):
    graded = [group(question(n), *([1.0] * right + [0.0] * (4 - right))) for n, right in enumerate((0, 1, 2))]
    # The last question keeps its rollouts, so that some are left.
    for gate in ({"max_right": 1}, {"max_right": None, "max_accuracy": 0.25}):
        method = make(tmp_path, name, rollouts=rollouts, **gate)
        edited = method.edit(graded, 1)
        assert edited[2] == graded[2]
        for before, after in zip(graded[:2], edited[:2], strict=True):
            *kept, row = after.rollouts
            assert tuple(kept) == (before.rollouts if rollouts == "keep" else ())
            assert (row.role, row.counts_in_mean, row.key) == (
                Role.DEMONSTRATION,
                False,
                f"{before.question.draw}_4_0",
            )
        metrics = method.metrics()
        assert (metrics["method/gate_opened"], metrics["method/demonstrations_joined"]) == (2.0, 2.0)


@pytest.mark.parametrize("name", GATED)
def test_a_gate_that_never_opens_changes_nothing(name, tmp_path):
    method = make(tmp_path, name)
    graded = [group(question(n), 0.0, 1.0) for n in range(3)]
    assert method.edit(graded, 1) == graded and method.metrics()["method/gate_opened"] == 0.0


def test_where_no_rollout_would_be_left_one_questions_stay_and_count_for_nothing(tmp_path):
    method = make(tmp_path, "hpt", coeff=0.5)
    first, second = method.edit([group(question(1), 0.0, 0.0), group(question(2), 0.0, 0.0)], 1)
    assert [rollout.role for rollout in first.rollouts] == [Role.OWN, Role.OWN, Role.DEMONSTRATION]
    assert [rollout.role for rollout in second.rollouts] == [Role.DEMONSTRATION]
    assert method.coefficients(1) == {Role.OWN: 0.0, Role.DEMONSTRATION: 0.5}
    method.edit([group(question(1), 0.0, 0.0), group(question(2), 0.0, 1.0)], 2)
    assert method.coefficients(2) == {Role.DEMONSTRATION: 0.5}


def test_a_question_without_a_demonstration_keeps_its_rollouts(tmp_path):
    method = make(tmp_path, "hpt")
    graded = [group(question(1, None), 0.0, 0.0), group(question(2, "wrong"), 0.0, 0.0)]
    assert method.edit(graded, 1) == graded
    metrics = method.metrics()
    assert metrics["method/demonstrations_rejected/missing"] == metrics["method/demonstrations_rejected/wrong"] == 1.0


def rows(groups) -> list[tuple]:
    """Whatever of groups a loss depends on."""
    return [
        (r.reward, r.role, r.counts_in_mean, None if r.token_ids is None else tuple(r.token_ids))
        for one in groups
        for r in one.rollouts
    ]


def graded_by(*right: int, of: int = 4):
    return [group(question(n), *([1.0] * k + [0.0] * (of - k))) for n, k in enumerate(right)]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ({}, {0, 5}),
        ({"max_accuracy": 0.25}, {0, 1, 5}),
        ({"max_accuracy": 0.5}, {0, 1, 2, 5}),
        ({"select": "all"}, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_every_gate_goes_with_every_placement(placement, trigger, expected, tmp_path):
    method = make(tmp_path, "factorial", placement=placement, trigger=trigger)
    graded = graded_by(0, 1, 2, 3, 4, 0)
    edited = method.edit(graded, 1)
    assert {n for n, (before, after) in enumerate(zip(graded, edited, strict=True)) if before is not after} == expected
    assert method.metrics()["method/gate_opened"] == len(expected)
    everything_went = placement == "spliced" and trigger == {"select": "all"}
    for number in expected - ({0} if everything_went else set()):
        *kept, row = edited[number].rollouts
        assert tuple(kept) == (() if placement == "spliced" else graded[number].rollouts[:-1])
        assert (row.role, row.reward, row.counts_in_mean) == (Role.DEMONSTRATION, 1.0, placement == "in_mean")
    assert (Role.OWN in method.coefficients(1)) == everything_went


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_harder_a_question_the_likelier_its_demonstration(placement, tmp_path):
    method = make(tmp_path, "factorial", placement=placement, trigger={"select": "proportional"})
    graded, opened = graded_by(0, 1, 3, 4), [0, 0, 0, 0]
    for step in range(400):
        edited = method.edit(graded, step)
        assert rows(edited) == rows(method.edit(graded, step))  # a resumed run draws the same
        opened = [n + (before is not after) for n, before, after in zip(opened, graded, edited, strict=True)]
    assert (opened[0], opened[3]) == (400, 0)
    assert opened[1] == pytest.approx(300, abs=40) and opened[2] == pytest.approx(100, abs=40)


def test_a_combination_edits_as_hpt(tmp_path):
    graded = graded_by(0, 1, 4)
    for gate, accuracy in ((0, 0.0), (1, 0.25)):
        combined = make(tmp_path, "factorial", trigger={"max_accuracy": accuracy})
        assert rows(combined.edit(graded, 1)) == rows(make(tmp_path, "hpt", max_right=gate).edit(graded, 1))
    failed = graded_by(0, 0)
    combined, hpt = make(tmp_path, "factorial"), make(tmp_path, "hpt")
    assert rows(combined.edit(failed, 1)) == rows(hpt.edit(failed, 1)) and combined.coefficients(1) == hpt.coefficients(
        1
    )


def test_a_combination_trains_on_the_rows_of_luffy(tmp_path):
    """LUFFY samples one rollout less; the combination leaves it out."""
    luffy, asked = make(tmp_path, "luffy"), [question(0), question(1)]
    assert [prompt.samples for prompt in luffy.prompts(asked, 1)] == [3, 3]
    fewer = [group(asked[0], 0.0, 0.0, 0.0), group(asked[1], 1.0, 0.0, 1.0)]
    all_of_them = [group(asked[0], 0.0, 0.0, 0.0, 1.0), group(asked[1], 1.0, 0.0, 1.0, 0.0)]
    combined = make(tmp_path, "factorial", trigger={"select": "all"}, placement="in_mean", token_weight="shaped")
    assert combined.prompts(asked, 1) == [Prompt.bare(one) for one in asked]
    assert rows(combined.edit(all_of_them, 1)) == rows(luffy.edit(fewer, 1))


def test_mu_is_a_function_of_the_step():
    mu = RiseAndFall(peak=0.9, valley=0.05, decay_steps=200)
    assert mu.at(1) == pytest.approx(0.9) and mu.at(101) == pytest.approx(0.475)
    assert mu.at(201) == mu.at(1000) == 0.05
    rising = RiseAndFall(peak=0.5, valley=0.02, warmup_steps=200, decay_steps=400)
    assert rising.at(1) == 0.0 and rising.at(101) == pytest.approx(0.25) and rising.at(201) == pytest.approx(0.5)
    assert rising.at(401) == pytest.approx(0.26) and rising.at(601) == 0.02
    assert RiseAndFall(peak=0.1, valley=0.1).at(1) == 0.1


def training_rows(*kinds: str | None):
    return [question(n, kind, draw=f"row-{n}") for n, kind in enumerate(kinds)]


def test_a_stream_of_demonstrations_is_independent_of_the_steps_questions(tmp_path):
    training_set = training_rows("right", "wrong", "right", None, "right")
    method = make(tmp_path, "chord_mu", training_set, sft={"batch_size": 2})
    first, second = (method.supervised([group(question(9), 1.0, 0.0)], step).spliced for step in (1, 2))
    assert (first.weight, method.coefficients(1)[Role.OWN]) == (0.9, pytest.approx(0.1))
    assert second.weight < 0.9 and method.coefficients(2)[Role.OWN] == 1.0 - second.weight
    assert len(first.demonstrations) == len(second.demonstrations) == 2
    taken = [TOKENIZER.decode(d.response_ids[:-1]) for d in (*first.demonstrations, *second.demonstrations)]
    assert set(taken[:3]) == {"\\boxed{0}", "\\boxed{2}", "\\boxed{4}"}  # each once before any comes again


def test_a_resumed_stream_continues_where_the_first_was(tmp_path):
    training_set = training_rows(*["right"] * 7)

    def taken(method, steps):
        return [[d.question for d in method.supervised([], step).spliced.demonstrations] for step in steps]

    whole, first, second = (make(tmp_path, "chord_phi", training_set, sft={"batch_size": 3}) for _ in range(3))
    expected = taken(whole, range(1, 7))
    begun = taken(first, range(1, 3))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + taken(second, range(3, 7)) == expected
    assert len({question for batch in expected[:2] for question in batch}) == 6


def test_a_stream_without_a_single_demonstration_ends_the_run():
    stream = Stream(training_rows(None, None), lambda epoch: __import__("random").Random(epoch))
    with pytest.raises(ValueError, match="no demonstration of the training set holds"):
        stream.take(2, lambda questions: [])


def test_mu_of_zero_is_grpo(tmp_path):
    method = make(tmp_path, "chord_mu", mu={"peak": 0.0, "valley": 0.0, "decay_steps": 0})
    assert method.supervised([], 1).spliced is None and method.coefficients(1) == {Role.OWN: 1.0}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "luffy", "coeff": -1}, r"method\.coeff=-1\.0 must be finite and not negative; 0 switches it off"),
        ({"name": "luffy", "gamma": 0}, r"method\.gamma=0\.0 must be positive"),
        (
            {"name": "luffy", "demonstrations": {"source": "teacher"}},
            r"method\.demonstrations\.source is not a setting",
        ),
        (
            {"name": "rl_plus", "behavior": "vocabulary"},
            r"method\.behavior='vocabulary' must be one of uniform, certain",
        ),
        ({"name": "rl_plus", "exploration": -0.5}, r"method\.exploration=-0\.5 must not be negative"),
        ({"name": "srft", "floor": 0}, r"method\.floor=0\.0 must be in \(0, 1\): log p has no lower bound"),
        ({"name": "srft", "sft_entropy": "none"}, r"method\.sft_entropy='none' must be one of negative, positive"),
        ({"name": "hpt", "max_right": -1}, r"method\.max_right=-1 must not be negative"),
        ({"name": "hpt", "max_accuracy": 0.5}, r"method\.max_right and method\.max_accuracy: set one of them"),
        ({"name": "hpt", "max_right": None, "max_accuracy": 1.5}, r"method\.max_accuracy=1\.5 must be in \[0, 1\]"),
        ({"name": "superrl", "rollouts": "some"}, r"method\.rollouts='some' must be one of drop, keep"),
        ({"name": "chord_mu", "mu": {"peak": 1.5, "valley": 0}}, r"method\.mu\.peak=1\.5 must be in \[0, 1\]"),
        ({"name": "chord_phi", "sft": {"batch_size": 0}}, r"method\.sft\.batch_size=0 must be at least 1"),
        ({"name": "chord_phi", "sft": {"token_weight": "p"}}, r"must be one of one, phi, shaped, probability"),
        ({"name": "factorial", "placement": "buffer"}, r"must be one of spliced, in_mean, out_of_mean"),
        (
            {"name": "factorial", "trigger": {"select": "all", "max_accuracy": 0.25}},
            r"method\.trigger\.max_accuracy=0\.25 has no effect with method\.trigger\.select=all; leave it at 0",
        ),
        (
            {"name": "factorial", "demonstrations": {"source": "privileged"}},
            r"method\.demonstrations\.source is not a setting",
        ),
    ],
)
def test_bad_settings_are_named(mapping, message):
    with pytest.raises(SettingsError, match=message):
        read_method(mapping)


@pytest.mark.parametrize(
    ("method", "override", "problem"),
    [
        (
            "luffy",
            "algorithm.adv_estimator=rloo",
            "algorithm.adv_estimator=rloo: a demonstration in a group is compared",
        ),
        ("srft", "algorithm.use_kl_in_reward=true", "algorithm.use_kl_in_reward=true would take a KL penalty"),
        ("hpt", "algorithm.filter_groups.enable=true", "algorithm.filter_groups.enable=true removes questions before"),
        ("hpt", "method.max_right=9", "method.max_right=9 is more than actor_rollout_ref.rollout.n=8 rollouts"),
        ("luffy", "relift.rollout.batched=false", "guides what is sampled or adds to it"),
        ("hpt", "relift.rollout.batched=false", "guides what is sampled or adds to it"),
        ("srft", "actor_rollout_ref.actor.calculate_entropy=false", "the weights need the entropy; set it to true"),
        ("chord_mu", "data.train_batch_size=32", "ppo_mini_batch_size=16: demonstrations join a step's last RL update"),
        ("chord_phi", "actor_rollout_ref.actor.ppo_epochs=2", "ppo_epochs=2: this method makes one update a step"),
    ],
)
def test_what_cannot_work_is_named_before_the_start(method, override, problem):
    with overridden(override, method=method) as config:
        assert [line for line in settings_problems(config) if problem in line]


@pytest.mark.parametrize("name", [*IN_PLACE, *GATED, "chord_mu", "chord_phi", "factorial"])
def test_the_small_task_has_no_problem(name):
    with overridden(method=name) as config:
        assert list(settings_problems(config)) == []


def test_clipping_is_a_switch():
    for clip, expected in (("false", (1.0, 1e9, 1e9)), ("true", (0.2, 0.2, 3.0))):
        with overridden(f"method.clip={clip}", method="luffy") as config:
            actor = config.actor_rollout_ref.actor
            assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == expected
