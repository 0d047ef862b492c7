"""What `--help` says, and which commands there are."""

import argparse
import functools
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from .methods.registry import METHODS

COMMANDS = {
    "verl_relift.quickstart": "train, evaluate, export and try a small model on a CPU",
    "verl_relift.pretrained": "the same with a pretrained model of 135M parameters, which it fetches",
    "verl_relift.quickstart.random_model": "a tiny model that knows nothing, for trying your data on a CPU",
    "verl_relift.pretrained.fetch": "a pretrained model of 135M or 494M parameters, as a folder",
    "verl_relift.plan": "does a configuration fit on these GPUs, and how long does it take",
    "verl_relift.train": "train",
    "verl_relift.report": "one page of curves of one or more runs, also while they run",
    "verl_relift.grade": "the answers or demonstrations of a file, graded with your reward function",
    "verl_relift.evaluate": "accuracy of a model on parquet files",
    "verl_relift.export": "a checkpoint as a Hugging Face model",
    "data_preprocess.jsonl": "your own jsonl, csv or parquet as training data; gsm8k, math, ... for known data sets",
    "data_preprocess.check": "are parquet files fit to train on, or to evaluate on",
    "data_preprocess.prepare_model": "positions and a chat template for a base model",
}


def commands() -> str:
    """Return the list of commands."""
    rows = "\n".join(f"  {name:<36} {what}" for name, what in COMMANDS.items())
    return f"usage: python -m COMMAND --help\n\n{rows}\n\nREADME.md and docs/ explain them."


def training() -> str:
    """Return the usage of the training command."""
    names = textwrap.fill(", ".join(METHODS), 100, subsequent_indent=" " * 16)
    return f"""\
usage: python -m verl_relift.train [--config-name NAME] [method=...] [key=value ...] [--max-restarts N] [--verbose]

--config-name   relift (default, the paper's sizes), smoke (a few steps on a CPU), quickstart; --config-dir for your own
method          {names}
--max-restarts  start again from the last checkpoint when the run dies, at most N times
--verbose       show what goes to logs/train.log in the run's folder
--cfg job       print the configuration and train nothing; with --package method, only that group

data.train_files=FILE data.val_files=FILE              parquet files (docs/data.md); no default
actor_rollout_ref.model.path=DIR                       Hugging Face folder, or hub id after `hf download`; no default
data.max_prompt_length=1024 data.max_response_length=8192   tokens; their sum at most the model's positions
data.train_batch_size=128 actor_rollout_ref.rollout.n=8     questions a step, answers a question
actor_rollout_ref.actor.optim.lr=1e-6                  learning rate of the RL update
actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2   devices that share one copy of the model
trainer.n_gpus_per_node=8 trainer.nnodes=1             devices (on a CPU: processes)
trainer.total_training_steps=500 trainer.save_freq=50 trainer.test_freq=50
trainer.default_local_dir=DIR                          the run's folder; the same command resumes from it
reward.custom_reward_function.path=FILE.py             your own reward function (docs/own-reward.md)

docs/train.md explains all keys, `python -m verl_relift.plan` takes the same ones and says whether they fit.
"""


class _Compact(argparse.RawDescriptionHelpFormatter):
    """One line for each flag, with short names of values."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=40, width=120)

    def start_section(self, heading: str | None) -> None:
        super().start_section(None if heading == "options" else heading)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return "N" if action.type not in (None, str, Path) else "PATH" if action.type is Path else "VALUE"


def _report(otherwise: Callable, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        otherwise(kind, error, trace)


def argument_parser(module: str, text: str | None, positional: str = "", page: str = "") -> argparse.ArgumentParser:
    """Return a parser whose help fits on a screen. From then on, Ctrl-C ends the command with a line, not a traceback.

    Args:
        module: the command, as it stands behind `python -m`.
        text: what it does; its first paragraph is shown.
        positional: the arguments that are no flags, as usage shows them.
        page: where the rest is explained.
    """
    sys.excepthook = functools.partial(_report, sys.excepthook)
    prog = f"python -m {module}"
    usage = " ".join(filter(None, (prog, positional, "[--flag ...]")))
    description = (text or "").strip().split("\n\n")[0] + (f"\n{page} explains the rest." if page else "")
    parser = argparse.ArgumentParser(
        prog, usage=usage, description=description, formatter_class=_Compact, add_help=False
    )
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    return parser
