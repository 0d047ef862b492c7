"""Options of Hydra that show something: nothing is composed, checked or trained before Hydra answers."""

import sys

import pytest

from verl_relift import train

SHOWING = [
    ["--cfg", "job"], ["--cfg=job"], ["-c", "job"], ["-cjob"], ["--cfg", "all", "--resolve"], ["--cf", "hydra"],
    ["--info"], ["-i"], ["--info=searchpath"], ["--help"], ["-h"], ["--hydra-help"],
]  # fmt: skip
# What recipe/sft_then_rl/run.sh gives.
RECIPE = ["method=sft_then_rl", "method.first.overrides=['method.sft.lr=1e-5']", "method.then.method=grpo"]


@pytest.fixture
def composed(monkeypatch):
    """The command lines that were composed as ones that train."""
    commands = []

    class Composed(Exception):
        pass

    def parse(arguments):
        commands.append(list(arguments))
        raise Composed

    monkeypatch.setattr(train.Arguments, "parse", parse)
    return commands, Composed


@pytest.mark.parametrize("before", [[], ["trainer.save_freq=7"]], ids=["", "with-overrides"])
@pytest.mark.parametrize("options", SHOWING, ids=" ".join)
def test_showing_trains_nothing_in_any_spelling(options, before, composed, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", *RECIPE, *before, *options])
    train._act_before_hydra(0)
    assert composed[0] == []


@pytest.mark.parametrize("options", [[], ["--config-name", "cfg"], ["--config-dir=info"], ["-cn", "smoke"], ["--run"]])
def test_a_training_command_is_composed(options, composed, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", *RECIPE, *options])
    with pytest.raises(composed[1]):
        train._act_before_hydra(0)


@pytest.mark.parametrize("options", SHOWING, ids=" ".join)
def test_hydra_understands_what_it_is_given(options, monkeypatch):
    """An option whose value may be left out must not take an override for it."""
    monkeypatch.setattr(sys, "argv", ["train", *options, *RECIPE])
    train._complete_arguments()
    found = train.get_args_parser().parse_args()
    assert set(RECIPE) <= set(found.overrides)
    assert any(getattr(found, name) for name in train._SHOWING)
