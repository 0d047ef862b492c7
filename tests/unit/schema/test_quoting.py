"""An override that Hydra can't read is answered with the one that it can, quoted for the shell."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from verl_relift.run.composition import Arguments
from verl_relift.schema import refusal
from verl_relift.schema.quoting import misread

HOME = Path.home()


def answer(*words: str) -> str:
    """The line of a command with these arguments, which can't be composed."""
    arguments = Arguments.parse(words)
    with pytest.raises((HydraException, OmegaConfBaseException)) as refused:
        arguments.compose("cpu")
    line = refusal(refused.value, arguments.overrides, "cpu")
    assert "\n" not in line
    return line


# What was typed, what the line says, and the value that its suggestion has.
QUOTED = [
    (
        ["method.first.overrides=[trainer.save_freq=10,method.sft.lr=2e-5]"],
        "method.first.overrides: = in a value needs quotes: ",
        ["trainer.save_freq=10", "method.sft.lr=2e-5"],
    ),
    (["method.first.overrides=[a=1, 'b=2']"], "method.first.overrides: = in a value", ["a=1", "b=2"]),
    (["data.train_files=/a/b=c.parquet"], "data.train_files: = in a value needs quotes: ", "/a/b=c.parquet"),
    (["data.train_files=[/a/b=c.parquet,d e]"], "data.train_files: = in a value", ["/a/b=c.parquet", "d e"]),
    (["data.train_files=/a/b(1).parquet"], "data.train_files: ( in a value needs quotes: ", "/a/b(1).parquet"),
    (["data.train_files=a.parquet,b.parquet"], "data.train_files: a list needs brackets: ", ["a.parquet", "b.parquet"]),
    (["data.train_files=a.parquet,b=1"], "data.train_files: a list needs brackets: ", ["a.parquet", "b=1"]),
    (["trainer.logger=tensorboard,wandb"], "trainer.logger: a list needs brackets: ", ["tensorboard", "wandb"]),
    (
        ["trainer.logger=[tensorboard,", "wandb]"],
        "trainer.logger=[tensorboard,: [ is not closed; with a space in it, it needs quotes: ",
        ["tensorboard", "wandb"],
    ),
    (
        ["trainer.logger=[tensorboard,", "wandb,", "console]", "trainer.save_freq=3"],
        "trainer.logger=[tensorboard,: [ is not closed; with a space",
        ["tensorboard", "wandb", "console"],
    ),
    (["data.max_prompt_length=1,024"], "data.max_prompt_length=1,024: write the number without commas: ", 1024),
    (["++data.train_max_samples=1,234,567"], "data.train_max_samples=1,234,567: write the number", 1234567),
    (["trainer.experiment_name=a,b"], "trainer.experiment_name: , in a value needs quotes: ", "a,b"),
    (["trainer.experiment_name=it's"], "trainer.experiment_name: ' in a value needs quotes: ", "it's"),
    (["trainer.experiment_name=a#b"], "trainer.experiment_name: # in a value needs quotes: ", "a#b"),
    (["trainer.experiment_name=wow!"], "trainer.experiment_name: ! in a value needs quotes: ", "wow!"),
    (["data.train_files=~/a.parquet"], "data.train_files: ~ is not replaced by a folder here: ", f"{HOME}/a.parquet"),
    (["data.train_files=[~/a,b]"], "data.train_files: ~ is not replaced", [f"{HOME}/a", "b"]),
]


@pytest.mark.parametrize(("words", "said", "value"), QUOTED, ids=lambda value: str(value))
def test_the_line_names_the_argument_and_shows_it_as_the_shell_takes_it(words, said, value):
    line = answer(*words)
    assert line.startswith(said)
    [suggested] = shlex.split(line.rpartition(": ")[2])
    parsed = OverridesParser.create().parse_override(suggested)
    assert parsed.key_or_group == words[0].partition("=")[0].lstrip("+") and not parsed.is_sweep_override()
    read = parsed.value()
    assert [*map(str, read)] == value if isinstance(value, list) else getattr(read, "text", read) == value


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainer.logger=[tensorboard,wandb"], "trainer.logger=[tensorboard,wandb: [ is not closed"),
        (["method.teacher={model:m"], "method.teacher={model:m: { is not closed"),
        (["data.train_files='a b.parquet"], "data.train_files='a b.parquet: ' is not closed"),
        (["trainer.experiment_name=${a"], "trainer.experiment_name=${a: { is not closed"),
        (
            ["trainer.save_freq", "7"],
            "trainer.save_freq: must be key=value, with one = and no space before or after it",
        ),
        (["trainer.save_freq", "=7"], "trainer.save_freq: must be key=value, with one = and no space"),
        (["trainer.save_freq=3", "--config-name", "smoke", "7"], "7: must be key=value"),
        (["data.seed = 8"], "data.seed = 8: must be key=value, with one = and no space"),
        (["data.seed==8"], "data.seed==8: must be key=value, with one ="),
        (["=8"], "=8: must be key=value"),
        (["trainer.save_freq=range(1,3)"], "trainer.save_freq=range(1,3): a run has one value for each key"),
    ],
    ids=lambda value: str(value),
)
def test_what_is_missing_is_named(words, line):
    assert answer(*words).startswith(line)


def test_an_override_of_a_stage_is_answered_too():
    with pytest.raises(HydraException) as refused:
        Arguments(overrides=("trainer.logger=[a,b",)).compose("cpu")
    whole = ["method=sft_then_rl", "method.first.overrides=['trainer.logger=[a,b']"]
    assert refusal(refused.value, whole, "cpu") == "trainer.logger=[a,b: [ is not closed"


@pytest.mark.parametrize(
    "override",
    ["a=1", "+a.b=[x,y]", "~a", "~a=1", "a=", "a='b=c'", "a={b:1}", "a=x y", "a=${b}", "a=1e-5", "a=[[1,2],'c,d']"],
)
def test_what_hydra_reads_has_no_line(override):
    assert misread([override]) is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("method=lufy", "method=lufy: there is no such method; did you mean luffy?"),
        ("method=relfit", "method=relfit: there is no such method; did you mean relift?"),
        ("method=ppo_x", "method=ppo_x: there is no such method; choose one of chord_mu, chord_phi, factorial, grpo,"),
        ("method=", "method=: there is no such method; choose one of chord_mu"),
        ("platform=gpu", "platform=gpu: there is no such platform; choose one of cpu, cuda"),
    ],
)
def test_a_group_that_does_not_exist_is_answered_with_those_that_do(override, line):
    assert answer(override).startswith(line)
