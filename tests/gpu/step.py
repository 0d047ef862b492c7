"""Run one step in this process: `python -m tests.gpu.step NAME ...`, as the runner calls it."""

import argparse
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from .report import Report, Skipped
from .steps import STEPS


@dataclass(frozen=True)
class Task:
    """What a step is given.

    Attributes:
        argument: what the step does of what it can.
        device: `cuda` or `cpu`; on a CPU everything is small.
        folder: an empty folder of the step's own.
        seconds: how long it may take.
        model: folder of Qwen2.5-Coder-0.5B, if it is there.
        gsm8k: folder with GSM8K's files.
    """

    argument: str
    device: str
    folder: Path
    seconds: float
    model: Path | None
    gsm8k: Path

    @property
    def cuda(self) -> bool:
        """Whether this is the real thing, not the rehearsal."""
        return self.device == "cuda"


def main() -> int:
    """Run the command line.

    Returns:
        0 if everything holds, else 1.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[step.name for step in STEPS])
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--gsm8k", type=Path, required=True)
    given = parser.parse_args()

    os.environ["VERL_PLATFORM"] = "nvidia" if given.device == "cuda" else "cpu"
    from verl_relift.run.environment import prepare_environment

    prepare_environment()
    step = next(step for step in STEPS if step.name == given.name)
    report = Report(given.report, step.name, given.device)
    task = Task(step.argument, given.device, given.folder, given.seconds, given.model, given.gsm8k)
    try:
        importlib.import_module(f"{__package__}.steps.{step.module}").run(report, task)
    except Skipped as reason:
        print(f"skipped: {reason}")
        report.finish(skipped=str(reason))
        return 0
    except Exception as error:
        report.error("the step", error)
    return 0 if report.finish() else 1


if __name__ == "__main__":
    sys.exit(main())
