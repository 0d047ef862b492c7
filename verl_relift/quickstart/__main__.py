"""Train, evaluate, export and try a small model: `python -m verl_relift.quickstart [key=value ...]`

Each stage is a command of its own, which is shown as it runs.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console

from ..run.folder import METRICS, write_atomically
from . import base_model
from .progress import TrainingProgress
from .stages import MemoryWatch, end_with, run
from .summary import shortfalls, summarize, table

RUN = Path("outputs/quickstart")
DATA, BASE, EXPORTED, LOGS = RUN / "data", RUN / "base", RUN / "hf", RUN / "logs"
BASE_EVALUATION, TRAINED_EVALUATION = RUN / "evaluation" / "base", RUN / "evaluation" / "trained"
KEPT = (DATA.name, BASE.name)
EXAMPLE = Path("examples/inference/chat.py")
QUESTIONS = ("7*2+3-4=?", "8+5-6=?")
USAGE = f"""\
usage: python -m verl_relift.quickstart [key=value ...]

Trains a model of 0.3M parameters on a CPU, in some minutes: data, base model, evaluation, training, evaluation, export,
sample usage, report. Everything goes to {RUN}/, which is emptied first except for data and base model.

key=value overrides the training configuration verl_relift/config/quickstart.yaml: method=...,
trainer.total_training_steps=40, ... Exit status: 0 if the model has learned its task, 1 if not or if a stage fails."""


class Quickstart:
    """The stages of the quickstart.

    Attributes:
        overrides: key=value arguments for training.
        console: where progress is shown.
        seconds: duration of each finished stage.
        memory: peak memory of all stages.
    """

    def __init__(self, overrides: list[str], console: Console):
        self.overrides, self.console = overrides, console
        self.seconds: dict[str, float] = {}
        self.memory = MemoryWatch()

    def stage(self, name: str, title: str, command: list[str], watch: Callable[[], None] = lambda: None) -> None:
        """Run a stage and note its duration.

        Args:
            name: name of the stage, and of its log.
            title: heading to show.
            command: arguments of `python`.
            watch: called twice a second while the stage runs.

        Raises:
            StageFailed: the command failed.
        """
        self.console.print(f"[bold]{title}[/]  [dim]python {' '.join(command)}[/]", soft_wrap=True, highlight=False)
        self.seconds[name] = run(command, _log(name), self.memory, watch)
        self.console.print(f"  {self.seconds[name]:.0f} s")

    def go(self) -> list[str]:
        """Run all stages.

        Returns:
            The reasons why the model does not count as having learned; empty if it does.

        Raises:
            StageFailed: a stage failed.
        """
        _clear()
        self.stage("data", "Data", ["-m", "data_preprocess.arithmetic", "--output", str(DATA)])
        self._base()
        self._evaluate("evaluate_base", "Evaluation of the base model", BASE, BASE_EVALUATION)
        step = self._train()
        checkpoint = RUN / f"global_step_{step}"
        self._evaluate(
            "evaluate_trained", "Evaluation after training", checkpoint / "actor/model/huggingface", TRAINED_EVALUATION
        )
        evaluations = [f"base={BASE_EVALUATION}", f"trained={TRAINED_EVALUATION}"]
        export = ["-m", "verl_relift.export", "--checkpoint", str(checkpoint), "--output", str(EXPORTED), "--overwrite"]
        self.stage("export", "Export to Hugging Face", [*export, "--evaluation", *evaluations])
        self.stage(
            "chat",
            "Sample usage of the exported model",
            [str(EXAMPLE), "--model", str(EXPORTED), *QUESTIONS],
        )
        _, first, answers = _log("chat").read_text().partition(QUESTIONS[0])  # skips vLLM's own lines
        self.console.print(first + answers.rstrip(), markup=False, highlight=False, style="dim")
        self.stage(
            "report",
            "Report",
            ["-m", "verl_relift.report", str(RUN), "--output", str(RUN / "report.html"), "--evaluation", *evaluations],
        )
        summary = summarize(RUN, BASE_EVALUATION, TRAINED_EVALUATION, self.seconds, self.memory.peak)
        write_atomically(RUN / "summary.json", json.dumps(summary, indent=2) + "\n")
        self._conclude(summary)
        return shortfalls(summary)

    def _base(self) -> None:
        key = _base_key()
        origin = BASE / "made_from.txt"
        if origin.exists() and origin.read_text() == key:
            self.console.print(f"[bold]Base model[/]  using {BASE}")
            return
        self.stage(
            "base",
            "Base model",
            ["-m", "verl_relift.quickstart.base_model", "--data", str(DATA), "--output", str(BASE)],
        )
        origin.write_text(key)

    def _evaluate(self, name: str, title: str, model: Path, output: Path) -> None:
        command = ["-m", "verl_relift.evaluate", "--model", str(model), "--data", str(DATA / "test.parquet")]
        command += ["--n", "1", "--temperature", "0", "--max-tokens", "64", "--output", str(output)]
        self.stage(name, title, command)

    def _train(self) -> int:
        """Train and return the number of steps."""
        total = _total_steps(self.overrides)
        with TrainingProgress(RUN / METRICS, total, self.console) as progress:
            self.stage(
                "train",
                "ReLIFT training",
                ["-m", "verl_relift.train", "--config-name", "quickstart", *self.overrides],
                progress.update,
            )
        return int((RUN / "latest_checkpointed_iteration.txt").read_text())

    def _conclude(self, summary: dict) -> None:
        self.console.print(table(summary))
        self.console.print(
            f"{summary['steps']} steps, {summary['sft_updates']} supervised updates on "
            f"{summary['demonstrations_used']} demonstrations ({summary['demonstration_fraction']:.1%} of those "
            f"available); {summary['seconds_per_step_median']} s/step, {summary['seconds_to_first_rollout']} s to the "
            f"first rollout, {sum(self.seconds.values()):.0f} s in all, peak memory {summary['peak_memory_gb']} GB\n"
            f"{RUN}/summary.json  {RUN}/report.html  {RUN}/curves.png  {EXPORTED}/  {LOGS}/"
        )


def _log(stage: str) -> Path:
    """Return the log of a stage. The run's own is in the same folder, and has the name of its command."""
    return LOGS / f"stage-{stage}.log"


def _clear() -> None:
    """Remove the files of an earlier quickstart except for the data and the base model."""
    RUN.mkdir(parents=True, exist_ok=True)
    for path in RUN.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _base_key() -> str:
    """Return a hash of the base model's code and data."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (Path(base_model.__file__), DATA / "pretrain.parquet"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _total_steps(overrides: list[str]) -> int:
    config = OmegaConf.load(Path(base_model.__file__).parent.parent / "config" / "quickstart.yaml")
    given = OmegaConf.from_dotlist([o for o in overrides if o.startswith("trainer.total_training_steps=")])
    return OmegaConf.merge(config, given).trainer.total_training_steps


def main() -> None:
    """Run the command.

    Raises:
        SystemExit: with status 0; with 1 if a stage failed or the model did not learn; with 130 on Ctrl-C.
    """
    overrides = sys.argv[1:]
    if {"-h", "--help"} & set(overrides):
        print(USAGE)
        return
    wrong = [argument for argument in overrides if "=" not in argument or argument.startswith("-")]
    if wrong:
        print(f"quickstart: {wrong[0]}: arguments are key=value; --help says more", file=sys.stderr)
        sys.exit(2)
    console = Console()
    end_with(Quickstart(overrides, console).go, console, "interrupted")


if __name__ == "__main__":
    main()
