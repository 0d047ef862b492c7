"""Train a real pretrained language model on a CPU: `python -m verl_relift.pretrained [--fresh] [key=value ...]`

SmolLM2-135M-Instruct, word problems of one or two operations (SVAMP), ReLIFT. Each stage is a command of its own, which
is shown as it runs.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console

from ..quickstart.progress import TrainingProgress
from ..quickstart.stages import MemoryWatch, end_with, run
from ..run.folder import METRICS, write_atomically
from .fetch import folder_of
from .models import SMOLLM2
from .summary import shortfalls, summarize, table

RUN = Path("outputs/pretrained")
DATA, EXPORTED, LOGS, STAGES = RUN / "data", RUN / "hf", RUN / "logs", RUN / "stages.json"
BASE_EVALUATION, TRAINED_EVALUATION = RUN / "evaluation" / "base", RUN / "evaluation" / "trained"
QUESTIONS, EXAMPLE = Path("examples/data/svamp"), Path("examples/inference/chat.py")
CONFIG = Path(__file__).parents[1] / "config" / "pretrained.yaml"
SYSTEM = Path("data_preprocess/templates/boxed.txt")
ASKED = (
    "Lea has 14 pencils and buys 3 boxes of 6 pencils. How many pencils does she have now?",
    "A bus has 52 seats. 17 of them are empty. How many people sit in the bus?",
)
USAGE = f"""\
usage: python -m verl_relift.pretrained [--fresh] [key=value ...]

Trains SmolLM2-135M-Instruct ({SMOLLM2.megabytes} MB to download, Apache-2.0) on a CPU: model, data, evaluation,
training, evaluation, export, sample usage, report. Everything goes to {RUN}/. The same command continues
where an interrupted one has stopped; --fresh begins again.

key=value overrides the training configuration verl_relift/config/pretrained.yaml: method=...,
trainer.total_training_steps=10, ... Exit status: 0 if the model has become better, 1 if not or if a stage fails."""


class Pretrained:
    """The stages.

    Attributes:
        overrides: key=value arguments for training.
        console: where progress is shown.
    """

    def __init__(self, overrides: list[str], console: Console):
        self.overrides, self.console = overrides, console
        self._memory = MemoryWatch()
        self._done: dict[str, dict] = json.loads(STAGES.read_text()) if STAGES.exists() else {}

    def go(self) -> list[str]:
        """Run all stages that are not done.

        Returns:
            The reasons why the model does not count as having learned; empty if it does.

        Raises:
            StageFailed: a stage failed.
        """
        model = folder_of(SMOLLM2)
        if not model.is_dir():
            self._done.pop("model", None)
        self._stage("model", f"Model ({SMOLLM2.megabytes} MB, once)", ["-m", "verl_relift.pretrained.fetch"])
        data = ["-m", "data_preprocess.svamp", "--input", str(QUESTIONS), "--output", str(DATA)]
        self._stage("data", "Data", [*data, "--template", "boxed", "--verify", "--quiet"])
        self._evaluate("evaluate_base", "Evaluation of the base model", model, BASE_EVALUATION)
        checkpoint = self._train(model)
        trained = checkpoint / "actor/model/huggingface"
        self._evaluate("evaluate_trained", "Evaluation after training", trained, TRAINED_EVALUATION)
        evaluations = [f"base={BASE_EVALUATION}", f"trained={TRAINED_EVALUATION}"]
        export = ["-m", "verl_relift.export", "--checkpoint", str(checkpoint), "--output", str(EXPORTED), "--overwrite"]
        self._stage("export", "Export to Hugging Face", [*export, "--evaluation", *evaluations])
        chat = [str(EXAMPLE), "--model", str(EXPORTED), "--system", SYSTEM.read_text().strip(), *ASKED]
        self._stage("chat", "Sample usage of the exported model", chat)
        _, first, answers = (LOGS / "chat.log").read_text().partition(ASKED[0])  # skips vLLM's own lines
        self.console.print(first + answers.rstrip(), markup=False, highlight=False, style="dim")
        report = ["-m", "verl_relift.report", str(RUN), "--output", str(RUN / "report.html")]
        self._stage("report", "Report", [*report, "--evaluation", *evaluations])
        summary = self._summarize()
        return shortfalls(summary)

    def _stage(self, name: str, title: str, command: list[str], watch: Callable[[], None] = lambda: None) -> None:
        """Run a stage, unless the same command has run to its end before."""
        done = self._done.get(name)
        if done is not None and done["command"] == command:
            self.console.print(f"[bold]{title}[/]  done before")
            return
        self.console.print(f"[bold]{title}[/]  [dim]python {' '.join(command)}[/]", soft_wrap=True, highlight=False)
        before = done["seconds"] if done is not None and done["command"] is None else 0.0
        self._note(name, None, before)
        seconds = run(command, LOGS / f"{name}.log", self._memory, watch)
        self._note(name, command, before + seconds)
        self.console.print(f"  {seconds:.0f} s")

    def _note(self, name: str, command: list[str] | None, seconds: float) -> None:
        """Record a stage: its command when it is done, None while it runs."""
        peak = max(self._memory.peak, self._done.get("peak", {}).get("bytes", 0))
        self._done |= {name: {"command": command, "seconds": seconds}, "peak": {"bytes": peak}}
        STAGES.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(STAGES, json.dumps(self._done, indent=2) + "\n")

    def _evaluate(self, name: str, title: str, model: Path, output: Path) -> None:
        command = ["-m", "verl_relift.evaluate", "--model", str(model), "--data", str(DATA / "test.parquet")]
        command += ["--n", "1", "--temperature", "0", "--max-tokens", "128", "--output", str(output)]
        if self._done.get(name, {}).get("command") not in (None, command):
            shutil.rmtree(output, ignore_errors=True)  # of other weights
        self._stage(name, title, command)

    def _train(self, model: Path) -> Path:
        """Train and return the last checkpoint."""
        command = ["-m", "verl_relift.train", "--config-name", "pretrained"]
        command += [f"actor_rollout_ref.model.path={model}", *self.overrides]
        with TrainingProgress(RUN / METRICS, _total_steps(self.overrides), self.console) as progress:
            self._stage("train", "ReLIFT training", command, progress.update)
        return RUN / f"global_step_{(RUN / 'latest_checkpointed_iteration.txt').read_text()}"

    def _summarize(self) -> dict:
        seconds = {name: stage["seconds"] for name, stage in self._done.items() if "seconds" in stage}
        peak = max(self._memory.peak, self._done["peak"]["bytes"])
        summary = summarize(RUN, BASE_EVALUATION, TRAINED_EVALUATION, seconds, peak)
        write_atomically(RUN / "summary.json", json.dumps(summary, indent=2) + "\n")
        low, high = summary["gain_interval"]
        self.console.print(table(summary))
        self.console.print(
            f"accuracy {summary['gain']:+.1%} (95% interval {low:+.1%} to {high:+.1%}, paired by question)\n"
            f"{summary['steps']} steps, {summary['sft_updates']} supervised updates on "
            f"{summary['demonstrations_used']} demonstrations ({summary['demonstration_fraction']:.1%} of those "
            f"available); {summary['seconds_per_step_median']} s/step, {summary['tokens_per_second_median']} tokens/s, "
            f"{sum(seconds.values()) / 60:.0f} min in all, peak memory {summary['peak_memory_gb']} GB\n"
            f"{RUN}/summary.json  {RUN}/report.html  {EXPORTED}/  {LOGS}/"
        )
        return summary


def _total_steps(overrides: list[str]) -> int:
    given = OmegaConf.from_dotlist([o for o in overrides if o.startswith("trainer.total_training_steps=")])
    return OmegaConf.merge(OmegaConf.load(CONFIG), given).trainer.total_training_steps


def main() -> None:
    """Run the command.

    Raises:
        SystemExit: see `end_with`; with 2 for invalid arguments.
    """
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return
    wrong = [one for one in arguments if one != "--fresh" and ("=" not in one or one.startswith("-"))]
    if wrong:
        print(f"pretrained: {wrong[0]}: arguments are --fresh and key=value; --help says more", file=sys.stderr)
        sys.exit(2)
    if "--fresh" in arguments:
        shutil.rmtree(RUN, ignore_errors=True)
    console = Console()
    pretrained = Pretrained([a for a in arguments if a != "--fresh"], console)
    end_with(pretrained.go, console, "interrupted; the same command continues")


if __name__ == "__main__":
    main()
