"""Equal prompts of a step are sampled with other seeds, whoever answers them."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from verl_relift.rollout.manager import RolloutManager
from verl_relift.rollout.worker import RolloutWorker
from verl_relift.types import Prompt, Question


def prompt(text, draw, attempt=0, forced=()):
    messages = ({"role": "user", "content": text},)
    return Prompt(Question(text, draw, messages, "1"), messages, forced, attempt=attempt)


@pytest.fixture
def copies(monkeypatch):
    """Return the places that a manager gives to prompts, without workers."""
    monkeypatch.setattr("verl_relift.rollout.manager.RolloutWorker", lambda *_: None)
    manager = RolloutManager(OmegaConf.create({"relift": {"rollout": {"workers": 0}}}), [], None, 1)
    yield lambda prompts, step=1, validate=False: [p.copy for p in manager._numbered(prompts, (step, validate))]
    manager.close()


def test_copies_of_a_question_are_counted(copies):
    assert copies([prompt("a", "0"), prompt("b", "1"), prompt("a", "2"), prompt(" a\n", "3")]) == [0, 0, 1, 2]


def test_calls_of_one_step_are_counted_together(copies):
    """The group filter refills a step, and verl validates a file in batches."""
    assert [copies([prompt("a", "0")]) for _ in range(3)] == [[0], [1], [2]]


def test_steps_and_validations_are_counted_for_themselves(copies):
    """So that a resumed run counts as one that was never stopped."""
    assert [copies([prompt("a", "0")], step, validate) for step, validate in ((1, False), (1, True), (2, False))] == [
        [0],
        [0],
        [0],
    ]


def test_retries_and_forced_heads_are_no_copies(copies):
    assert copies([prompt("a", "0"), prompt("a", "0", attempt=1), prompt("a", "1", forced=(5,))]) == [0, 0, 0]


def test_answers_without_a_head_are_copies_whatever_the_head_of_the_others(copies):
    """Those of two draws of a question would be the same otherwise."""
    some = [replace(prompt("a", str(n), forced=(n,)), guided=1) for n in (5, 6)]
    assert copies([prompt("a", "0"), *some]) == [0, 1, 2]


def test_the_seed_of_a_first_copy_is_the_one_that_it_had_without_copies():
    worker = object.__new__(RolloutWorker)
    worker._seed = 42
    seeds = [worker._seed_of(Prompt(prompt("a", "0").question, (), copy=n), [1, 2, 3], 7) for n in range(4)]
    assert len(set(seeds)) == 4
    assert seeds[0] == 1832794959609299039
