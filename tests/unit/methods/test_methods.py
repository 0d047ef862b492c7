"""What each method does with the groups of a step, without a trainer."""

import json

import pytest

from tests.unit.methods.steps import TOKENIZER, group, question, resources
from verl_relift.methods import METHODS, Method, method_class, read_method
from verl_relift.methods.placement import Moments
from verl_relift.settings import SettingsError
from verl_relift.types import Group, Prompt


def make(tmp_path, name: str, data_parallel_size: int = 1, **group_of_method):
    cls, settings = read_method({"name": name, **group_of_method})
    return cls(settings, resources(tmp_path, data_parallel_size))


def failed(*numbers: int) -> list[Group]:
    return [group(question(n), 0.0, 0.0) for n in numbers]


def solutions(demonstrations) -> list[str]:
    return [TOKENIZER.decode(d.response_ids[:-1]) for d in demonstrations]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_defaults_and_says_what_it_needs(name):
    cls, settings = read_method({"name": name})
    needs = cls.needs(settings)
    assert cls.stages(settings) or needs.rollouts or needs.supervised_rows
    assert needs.demonstrations is not None or not needs.supervised_rows


def test_relift_makes_an_update_of_its_own_when_m_wait(tmp_path):
    method = make(tmp_path, "relift", sft={"batch_size": 3, "lr": 1e-3, "lr_warmup_updates": 2})
    first = method.supervised([*failed(1, 2), group(question(3), 1.0, 0.0)], step=1)
    assert first.spliced is None and list(first.updates()) == []
    assert method.metrics()["relift/buffer_size"] == 2
    (update,) = method.supervised(failed(4, 5), step=2).updates()
    assert solutions(update.demonstrations) == ["\\boxed{1}", "\\boxed{2}", "\\boxed{4}"]
    assert update.lr == 5e-4 and not update.separate_moments
    metrics = method.metrics()
    assert metrics["relift/sft_updates"] == 1 and metrics["relift/demonstrations_used"] == 3
    assert metrics["relift/demonstration_fraction"] == 0.03 and metrics["relift/buffer_size"] == 1
    method.close()


def test_two_updates_of_a_step_have_the_learning_rates_of_their_turn(tmp_path):
    method = make(
        tmp_path,
        "relift",
        sft={"batch_size": 1, "lr": 1.0, "lr_warmup_updates": 4, "optimizer": "separate"},
        schedule={"max_updates_per_step": 3},
    )
    updates = method.supervised(failed(1, 2, 3, 4), step=1).updates()
    assert [update.lr for update in updates] == [0.25, 0.5, 0.75]
    assert all(update.separate_moments for update in updates)
    method.close()


def test_a_wrong_or_missing_solution_is_counted_and_not_trained_on(tmp_path):
    method = make(tmp_path, "relift", sft={"batch_size": 1})
    groups = [group(question(1, "wrong"), 0.0), group(question(2, None), 0.0)]
    assert list(method.supervised(groups, step=1).updates()) == []
    metrics = method.metrics()
    assert metrics["relift/demonstrations_rejected/wrong"] == metrics["relift/demonstrations_rejected/missing"] == 1
    method.close()


def test_a_question_that_was_trained_on_and_is_solved_has_recovered(tmp_path):
    method = make(tmp_path, "relift", sft={"batch_size": 1})
    method.supervised(failed(1), step=1).updates()
    method.supervised([group(question(1), 1.0, 0.0), group(question(2), 1.0)], step=2).updates()
    assert method.metrics()["relift/hardest_recovered"] == 1
    method.close()


def test_spliced_relift_joins_the_rl_update(tmp_path):
    method = make(tmp_path, "relift_splice", sft={"batch_size": 2, "weight": 0.5})
    assert method.supervised(failed(1), step=1).spliced is None
    supervised = method.supervised(failed(2), step=2)
    assert solutions(supervised.spliced.demonstrations) == ["\\boxed{1}", "\\boxed{2}"]
    assert supervised.spliced.weight == 0.5 and list(supervised.updates()) == []
    method.close()


def test_rl_with_sft_loss_takes_every_question_in_every_step(tmp_path):
    method = make(tmp_path, "rl_with_sft_loss", data_parallel_size=2)
    groups = [group(question(n), 1.0, 1.0) for n in (1, 2, 3)]
    assert solutions(method.supervised(groups, step=1).spliced.demonstrations) == ["\\boxed{1}", "\\boxed{2}"]
    # What the data-parallel size left over comes first in the next step.
    later = method.supervised([group(question(4), 0.0)], step=2).spliced
    assert solutions(later.demonstrations) == ["\\boxed{3}", "\\boxed{4}"]
    method.close()


def test_sft_trains_on_every_full_batch_and_samples_nothing(tmp_path):
    method = make(tmp_path, "sft", sft={"batch_size": 2})
    assert not method.needs(method.settings).rollouts
    groups = [Group(Prompt.bare(question(n))) for n in range(1, 6)]
    updates = method.supervised(groups, step=1).updates()
    assert [len(update.demonstrations) for update in updates] == [2, 2]
    assert method.metrics()["relift/buffer_size"] == 1
    method.close()


@pytest.mark.parametrize("cache", [None, "elsewhere"])
def test_a_teacher_keeps_its_answers_in_the_runs_folder_or_where_it_is_told(tmp_path, cache):
    teacher = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "max_retries": 0}
    folder = tmp_path / (cache or "teacher")
    teacher |= {"cache_dir": str(folder)} if cache else {}
    method = make(tmp_path, "relift", demonstrations={"source": "teacher"}, teacher=teacher)
    assert folder.is_dir()
    method.supervised(failed(1), step=1).updates()
    assert method.metrics()["relift/teacher/asked"] == 1.0
    method.close()


def test_grpo_changes_nothing(tmp_path):
    method = make(tmp_path, "grpo")
    groups, asked = failed(1), [question(1)]
    assert method.prompts(asked, 1) == [Prompt.bare(asked[0])]
    assert method.retry(groups, 1, 1) == [] and method.edit(groups, 1) == groups
    assert method.supervised(groups, 1).spliced is None and list(method.supervised(groups, 1).updates()) == []
    assert not method.reads_groups() and not method.guides_generation() and not method.weighs_tokens(method.settings)
    assert method.metrics() == {} and method.state_dict() == {}


def test_the_authors_take_the_last_demonstrations_first_with_moments_of_their_own(tmp_path):
    method = make(tmp_path, "relift_authors", sft={"batch_size": 2})
    supervised = method.supervised(failed(1, 2, 3), 1)
    (update,) = supervised.updates()
    assert solutions(update.demonstrations) == [f"\\boxed{{{n}}}" for n in (3, 2)]
    assert (update.separate_moments, update.entropy_coeff, update.lr, update.clip_grad) == (True, 1e-3, 1e-6, 1.0)
    assert method.needs(read_method({"name": "relift_authors"})[1]).supervised_rows == 128
    method.close()


def test_sft_then_rl_is_two_runs():
    cls, settings = read_method(
        {"name": "sft_then_rl", "first": {"overrides": ["data.seed=2"]}, "then": {"method": "relift"}}
    )
    first, second = cls.stages(settings)
    assert (first.folder, first.method, tuple(first.overrides)) == ("sft", "sft", ("data.seed=2",))
    assert (second.folder, second.method) == ("rl", "relift")


@pytest.mark.parametrize("name", ["relift", "relift_splice", "rl_with_sft_loss", "sft"])
def test_a_resumed_method_continues_where_the_first_was(name, tmp_path):
    """Through JSON, in the middle of a sequence of steps, with draws at random."""
    random = {"order": "random"} if name.startswith("relift") else None
    settings = {"sft": {"batch_size": 2}} | ({"buffer": random} if random else {})

    def steps(method: Method, numbers: range) -> list[list[str]]:
        taken = []
        for step in numbers:
            groups = [group(question(n), 0.0, float(n % 3 == 0)) for n in range(step * 5, step * 5 + 5)]
            supervised = method.supervised(groups, step)
            taken += [solutions(u.demonstrations) for u in supervised.updates()]
            taken += [solutions(supervised.spliced.demonstrations)] if supervised.spliced else []
        return [*taken, method.metrics()]

    whole, first, second = (make(tmp_path, name, **settings) for _ in range(3))
    expected = steps(whole, range(1, 7))
    begun = steps(first, range(1, 4))[:-1]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + steps(second, range(4, 7)) == expected
    for method in (whole, first, second):
        method.close()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "relfit"}, r"method=relfit: there is no such method; choose one of chord_mu, "),
        ({"name": "relift", "triger": {}}, r"method\.triger is not a setting; method has trigger, demonstrations"),
        ({"name": "relift", "sft": {"lrate": 1}}, r"method\.sft\.lrate is not a setting"),
        ({"name": "relift", "sft": {"lr": "fast"}}, r"method\.sft\.lr='fast' must be of type float"),
        ({"name": "relift", "sft": {"lr": 0}}, r"method\.sft\.lr=0\.0 must be positive.*method=grpo"),
        ({"name": "relift", "sft": {"batch_size": True}}, r"method\.sft\.batch_size=True must be of type int"),
        ({"name": "relift", "sft": {"batch_size": 0}}, r"method\.sft\.batch_size=0 must be at least 1"),
        ({"name": "relift", "trigger": {"max_accuracy": 1.0}}, r"method\.trigger\.max_accuracy=1\.0 must be in"),
        ({"name": "relift", "buffer": {"capacity": 8}}, r"capacity=8 is smaller than method\.sft\.batch_size=64"),
        ({"name": "relift", "buffer": {"max_age_steps": 0}}, r"method\.buffer\.max_age_steps=0 must be at least 1"),
        ({"name": "relift", "demonstrations": "target"}, r"method\.demonstrations must be a group of settings"),
        ({"name": "relift", "schedule": {"kind": "often"}}, r"must be one of adaptive, every_k, always, never"),
        ({"name": "relift", "schedule": {"every": 0}}, r"method\.schedule\.every=0 must be at least 1"),
        ({"name": "relift", "sft": {"lr_schedule": "cosine"}}, r"lr_decay_updates=None: lr_schedule=cosine needs"),
        ({"name": "relift", "sft": {"weight": 2.0}}, r"method\.sft\.weight is not a setting"),
        ({"name": "relift_splice", "sft": {"lr": 1e-3}}, r"method\.sft\.lr is not a setting"),
        ({"name": "relift_splice", "sft": {"optimizer": "separate"}}, r"method\.sft\.optimizer is not a setting"),
        ({"name": "relift_splice", "schedule": {"max_updates_per_step": 2}}, r"there is one RL update to join"),
        ({"name": "rl_with_sft_loss", "trigger": {}}, r"method\.trigger is not a setting"),
        ({"name": "grpo", "sft": {}}, r"method\.sft is not a setting; this method has none"),
        ({"name": "sft", "sft": {"optimizer": "separate"}}, r"there is no RL update to be separate from"),
        (
            {"name": "sft_then_rl", "then": {"method": "sft_then_rl"}},
            r"method\.then\.method=sft_then_rl: choose one of",
        ),
        ({"name": "sft_then_rl", "first": {"overrides": ["--x"]}}, r"'--x' is not of the form key=value"),
        ({"name": "relift", "demonstrations": {"source": "teacher"}}, r"source=teacher asks a teacher: set method"),
        ({"name": "relift", "teacher": {"budget_cost": 5}}, r"budget_cost=5\.0 needs method\.teacher\.price_input"),
        ({"name": "relift", "teacher": {"top_p": 0}}, r"method\.teacher\.top_p=0\.0 must be in \(0, 1\]"),
        ({"name": "relift", "demonstrations": {"overlong": "cut"}}, r"must be one of drop, error"),
    ],
)
def test_bad_settings_are_named(mapping, message):
    with pytest.raises(SettingsError, match=message):
        read_method(mapping)


def test_an_own_optimizer_cannot_be_one_of_another_form():
    cls, settings = read_method({"name": "relift", "sft": {"optimizer": "separate"}})
    assert settings.sft.optimizer is Moments.SEPARATE and method_class("relift") is cls
