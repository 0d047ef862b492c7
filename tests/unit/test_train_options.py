"""Options of Hydra that show something: nothing is composed, checked or trained before Hydra answers."""

import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from verl_relift import train
from verl_relift.checks import missing
from verl_relift.methods import METHODS
from verl_relift.run.composition import compose_config
from verl_relift.usage import training as usage

SHOWING = [
    ["--cfg", "job"], ["--cfg=job"], ["-c", "job"], ["-cjob"], ["--cfg", "all", "--resolve"], ["--cf", "hydra"],
    ["--info"], ["-i"], ["--info=searchpath"], ["--hydra-help"],
]  # fmt: skip
# What recipe/sft_then_rl/run.sh gives.
RECIPE = ["method=sft_then_rl", "method.first.overrides=['method.sft.lr=1e-5']", "method.then.method=grpo"]


@pytest.fixture
def checked(monkeypatch):
    """The configurations that were checked as ones to train."""
    configurations = []

    class Checked(Exception):
        pass

    def problems(config):
        configurations.append(config)
        raise Checked

    monkeypatch.setattr(train, "settings_problems", problems)
    return configurations, Checked


@pytest.mark.parametrize("before", [[], ["trainer.save_freq=7"]], ids=["", "with-overrides"])
@pytest.mark.parametrize("options", SHOWING, ids=" ".join)
def test_showing_trains_nothing_in_any_spelling(options, before, checked, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", *RECIPE, *before, *options])
    train._act_before_hydra(0)
    assert checked[0] == []


@pytest.mark.parametrize("options", [[], ["--config-dir=info", "--config-name", "cfg"], ["-cn", "smoke"], ["--run"]])
def test_a_training_command_is_checked(options, checked, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "cfg.yaml").write_text("defaults: [relift, _self_]")
    monkeypatch.setattr(sys, "argv", ["train", *RECIPE, *options])
    with pytest.raises(checked[1]):
        train._act_before_hydra(0)


@pytest.mark.parametrize("options", [[], ["--cfg", "job"], ["--info"]], ids=" ".join)
@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("method.gamma=0.1", "method.gamma: there is no such key with method=relift; these methods have it: "),
        ("data.train_bach_size=8", "data.train_bach_size: there is no such key; did you mean data.train_batch_size?"),
        ("method=lufy", "method=lufy: there is no such method; did you mean luffy?"),
        ("trainer.logger=[tensorboard,wandb", "trainer.logger=[tensorboard,wandb: [ is not closed"),
        ("wandb]", "wandb]: must be key=value"),
        ("--config-name=missing", "--config-name missing: there is no such configuration"),
    ],
)
def test_a_mistake_is_refused_in_the_same_line_where_the_configuration_is_only_shown(
    argument, line, options, checked, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["train", argument, *options])
    with pytest.raises(SystemExit) as ended:
        train._act_before_hydra(0)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"rejected: {line}") and said.count("\n") == 1


@pytest.mark.parametrize("options", SHOWING, ids=" ".join)
def test_hydra_understands_what_it_is_given(options, monkeypatch):
    """An option whose value may be left out must not take an override for it."""
    monkeypatch.setattr(sys, "argv", ["train", *options, *RECIPE])
    train._complete_arguments()
    found = train.get_args_parser().parse_args()
    assert set(RECIPE) <= set(found.overrides)
    assert found.cfg or found.info or found.hydra_help


@pytest.mark.parametrize("options", [["--help"], ["-h"], [*RECIPE, "--help"]], ids=["long", "short", "with-overrides"])
def test_help_is_one_page_that_names_every_method(options, checked, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", *options])
    with pytest.raises(SystemExit) as ended:
        train._act_before_hydra(0)
    text = capsys.readouterr().out
    assert ended.value.code == 0 and checked[0] == []
    assert len(text.splitlines()) <= 22 and max(map(len, text.splitlines())) <= 120
    assert [name for name in METHODS if not re.search(rf"\b{name}\b", text)] == []
    for word in ("--max-restarts", "--verbose", "--config-name", "docs/train.md", "verl_relift.plan"):
        assert word in text


def test_every_key_and_default_in_the_help_is_that_of_the_configuration():
    config = compose_config("relift", None, [], "cuda")
    pairs = re.findall(r"^(?:\S+=\S+ )*?([\w.]+\.[\w.]+)=([\w.-]+)|(?<= )([\w.]+\.[\w.]+)=([\w.-]+)", usage(), re.M)
    found = {key or other: value or another for key, value, other, another in pairs}
    assert len(found) >= 10
    for key, shown in found.items():
        value = OmegaConf.select(config, key, default="missing")
        assert value != "missing", key
        if not shown.isupper() and shown != "FILE.py":
            assert float(shown) == value, (key, shown, value)


def test_what_the_user_must_name_and_did_not_is_named():
    config = compose_config("relift", None, ["data.val_files=v.parquet"], "cpu")
    assert [line.split(" is not set; give ")[0] for line in missing(config)] == [
        "actor_rollout_ref.model.path",
        "data.train_files",
    ]


LR = "actor_rollout_ref.actor.optim.lr"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--learning_rate", "1e-6"], f"--learning_rate: no such flag; settings are key=value, such as {LR}=1e-6"),
        (["--learning-rate=2e-6"], f"--learning-rate: no such flag; settings are key=value, such as {LR}=2e-6"),
        (["--data.train_batch_size=8"], "--data.train_batch_size: no such flag; settings are key=value, such as "
         "data.train_batch_size=8"),
        (["--max_prompt_length", "9"], "--max_prompt_length: no such flag; settings are key=value, such as "
         "data.max_prompt_length=9"),
        (["--fsdp_config", "x"], "--fsdp_config: no such flag; settings are key=value, here with the keys "
         "actor_rollout_ref.actor.megatron.*"),
        (["--qqq"], f"--qqq: no such flag; settings are key=value, such as {LR}=1e-6"),
        (["--max-restart", "2"], "--max-restart: no such flag; did you mean --max-restarts?"),
        (["--max_restarts", "2"], "--max_restarts: no such flag; did you mean --max-restarts?"),
        (["--verbos"], "--verbos: no such flag; did you mean --verbose?"),
        (["--resume"], "--resume: no such flag; a run resumes by itself from its last checkpoint, in "),
        (["--dry-run"], "--dry-run: no such flag; python -m verl_relift.plan with the same settings "),
        (["--config_name=smoke"], "--config_name: no such flag; did you mean --config-name?"),
        (["--config", "my.yaml"], "--config: write the whole name, --config-name or --config-dir; --help explains"),
        (["--cfg", "jobs"], "--cfg: invalid choice: 'jobs'"),
        (["--config-name"], "--config-name: expected one argument; --help explains the options"),
    ],
)  # fmt: skip
def test_an_option_that_there_is_not_is_the_first_thing_that_is_said(options, line, checked, monkeypatch, capsys):
    for before, after in (([], []), (["-cn", "smoke", "trainer.save_freq=7"], ["--resolve", "data.seed=3"])):
        monkeypatch.setattr(sys, "argv", ["train", *before, *options, *after])
        with pytest.raises(SystemExit) as ended:
            train._act_before_hydra(0)
        said = capsys.readouterr()
        assert ended.value.code == 2 and said.out == "" and said.err.startswith(f"rejected: {line}"), said.err
        assert said.err.count("\n") == 1 and checked[0] == []


def test_every_option_that_there_is_not_is_named(checked, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--max-restart", "2", "--verbos", "method=grpo"])
    with pytest.raises(SystemExit):
        train._act_before_hydra(0)
    assert [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines()] == [
        "--max-restart",
        "--verbos",
    ]


ENDS = """
import sys
from pathlib import Path
from verl_relift import train
from verl_relift.run import console

def ends():
    if sys.argv[2] == "hydra":
        text = "Key 'x' is not in struct\\n\\nSet the environment variable HYDRA_FULL_ERROR=1 for more."
        print(text, file=sys.stderr)
    if sys.argv[2] == "raises":
        raise RuntimeError("no reason")
    sys.exit(2)

train._act_before_hydra = lambda *_: train._open_log(Path(sys.argv[1]), False)
train._complete_arguments = lambda: None
train._main = ends
train.prepare_environment = lambda: None
train.restarts.take_option = lambda arguments: (0, arguments)
train.main()
"""


@pytest.mark.parametrize(
    ("kind", "line", "status"),
    [
        ("hydra", "training failed: status 2: Key 'x' is not in struct", 2),
        ("silent", "training failed: status 2", 2),
        ("raises", "training failed: RuntimeError: no reason", 1),
    ],
)
def test_whatever_ends_the_start_leaves_its_last_line_on_the_console(kind, line, status, tmp_path):
    ended = subprocess.run([sys.executable, "-c", ENDS, str(tmp_path), kind], capture_output=True, text=True)
    assert ended.stderr.splitlines() == ["checking the settings, the model and the data ...", line]
    assert ended.returncode == status
