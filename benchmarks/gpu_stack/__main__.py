"""Check the GPU stack where there is no GPU: `python -m benchmarks.gpu_stack --output FILE.md [--only STEP ...]`.

Run by the Python of that stack; `make check-gpu-stack` installs one. Versions, libraries, every module of this
repository, the commands that must work on a login node, and the tests that need neither a GPU nor vLLM's CPU build.
Each check is a process of its own. The status is 1 if one fails.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.report import Report

ROOT = Path(__file__).parents[2]
# Compiled on installation; the check may run without them.
COMPILED = ("flash-attn", "transformer-engine-torch")

LIBRARIES = {
    "torch": "import torch; print(torch.__version__, 'cuDNN', torch.backends.cudnn.version())",
    "Transformer Engine's library": "import torch, transformer_engine.common as common; "
    "print(common._TE_LIB_CTYPES._name.rpartition('/')[2])",
    "vLLM": "import vllm; from vllm import LLM, SamplingParams; print(vllm.__version__)",
    "verl's Megatron engine for CUDA": "import verl; from megatron.core.extensions import transformer_engine as te; "
    "from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead; "
    "print('with Transformer Engine' if te.HAVE_TE else 'with the local layer spec')",
}

# Tests that can't pass here, by the beginnings of their names, and why. What needs a CUDA device is marked `gpu`, what
# takes minutes `slow`.
_CPU_BUILD = "looks into vLLM's CPU build"
_LATER = "asks for later refusals than the one of vLLM's CUDA build on a CPU"
_ENGINES = "tests/unit/test_engines.py"
_REFUSED = f"{_ENGINES}::test_one_line_says_what_is_refused"
_ARGUMENTS = "asks vLLM for its arguments; the CUDA build answers where it sees a GPU"
LEFT_OUT = {
    "tests/unit/test_checks.py": _LATER,
    "tests/unit/evaluate/test_input.py::test_the_command_line_ends_with_one_line": _LATER,
    "tests/unit/evaluate/test_input.py::test_a_model_folder_without_all_its_weights": _LATER,
    f"{_ENGINES}::test_the_quickstart_is_accepted": _ARGUMENTS,
    f"{_ENGINES}::test_asking_leaves_the_environment_as_it_is": _ARGUMENTS,
    f"{_ENGINES}::test_what_they_know_is_accepted": _ARGUMENTS,
    f"{_REFUSED}[+actor_rollout_ref.rollout.engine_kwargs": _ARGUMENTS,
    f"{_REFUSED}[+ray_kwargs": _ARGUMENTS,
    f"{_REFUSED}[ray_kwargs": _ARGUMENTS,
    "tests/parity/test_models.py::test_positions_of_vllm_equal_hugging_face": "runs a layer of vLLM's, which its CUDA "
    "build makes where it sees a GPU",
    "tests/unit/test_scripts.py": "linters of the CPU stack",
    "tests/unit/upstream/cpu/test_verl.py::test_the_version_of_vllm_is_still_asked_for_by_name": _CPU_BUILD,
    "tests/unit/upstream/speed/test_vllm.py": _CPU_BUILD,
    "tests/unit/upstream/test_registry.py::test_a_process_replaces_what_is_declared_and_nothing_else": _CPU_BUILD,
    "tests/unit/upstream/test_registry.py::test_nothing_of_speed_is_replaced_where_speed_patches_are_off": _CPU_BUILD,
}


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    step: str
    what: str
    passed: bool
    said: str
    seconds: float | None = None


def pins() -> Iterator[Finding]:
    """Compare what is installed with requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wrong, absent = [], []
    for name, pin in (line.split("==") for line in lines):
        try:
            if version(name) != pin:
                wrong.append(f"{name} {version(name)} instead of {pin}")
        except PackageNotFoundError:
            (absent if name in COMPILED else wrong).append(f"{name} is not installed")
    said = "; ".join([*wrong, *absent]) or "as pinned"
    yield Finding("pins", f"{len(lines)} packages of requirements.txt", not wrong, said)


def libraries() -> Iterator[Finding]:
    """Import what loads CUDA libraries, as on a machine with a GPU."""
    for name, code in LIBRARIES.items():
        yield _run("libraries", name, ["-c", code], VERL_PLATFORM="nvidia")


def modules() -> Iterator[Finding]:
    """Import every module of this repository."""
    ran = _run("modules", "verl_relift and data_preprocess", ["-m", f"{__package__}.modules", *_PACKAGES])
    found = json.loads(ran.said) if ran.passed else {"modules": 0, "failed": {"": ran.said}}
    said = "; ".join(f"{name}: {error}" for name, error in found["failed"].items()) or f"{found['modules']} modules"
    yield Finding("modules", ran.what, not found["failed"], said, ran.seconds)


_PACKAGES = ("verl_relift", "data_preprocess")


def commands(run: Path | None) -> Iterator[Finding]:
    """Run what works on a login node, and what must end with one line there."""
    if run is not None:
        with tempfile.TemporaryDirectory() as folder:
            yield _run(
                "commands", "report", ["-m", "verl_relift.report", str(run), "--output", f"{folder}/report.html"]
            )
            checkpoint = str(max(run.glob("global_step_*")))
            export = ["-m", "verl_relift.export", "--checkpoint", checkpoint, "--output", f"{folder}/model"]
            yield _run("commands", "export", export)
    with tempfile.TemporaryDirectory() as folder:
        data, model, run = f"{folder}/data", f"{folder}/model", f"{folder}/run"
        yield _run(
            "commands",
            "prepare a data set",
            ["-m", "data_preprocess.gsm8k", "--input", "tests/data/gsm8k", "--output", data, "--template", "think"],
        )
        yield _run("commands", "check it", ["-m", "data_preprocess.check", f"{data}/train.parquet"])
        yield _run("commands", "make a model", ["-m", "verl_relift.quickstart.random_model", "--output", model])
        plan = [
            "-m",
            "verl_relift.plan",
            "--gpu",
            "h100",
            "actor_rollout_ref.model.path=Qwen/Qwen2.5-7B",
        ]
        yield _run("commands", "plan", [*plan, "trainer.n_gpus_per_node=8", *_parallel(4)])
        files = [f"data.{kind}_files={data}/{name}.parquet" for kind, name in (("train", "train"), ("val", "test"))]
        train = ["-m", "verl_relift.train", *files, f"actor_rollout_ref.model.path={model}"]
        for platform in ("cpu", "cuda"):
            yield _run(
                "commands",
                f"train with platform={platform} is refused in one line",
                [*train, f"platform={platform}", f"trainer.default_local_dir={run}", *_parallel(1)],
                status=2,
            )


def _parallel(ranks: int) -> list[str]:
    return [
        f"actor_rollout_ref.actor.megatron.tensor_model_parallel_size={ranks}",
        f"actor_rollout_ref.rollout.tensor_model_parallel_size={ranks}",
    ]


def tests() -> Iterator[Finding]:
    """Run unit and parity tests with these versions."""
    for folder in ("tests/unit", "tests/parity"):
        left_out = [f"--deselect={name}" for name in LEFT_OUT]
        chosen = ["-m", "not slow and not gpu", "-p", "no:cacheprovider", *left_out]
        yield _run("tests", folder, ["-m", "pytest", "-q", folder, *chosen])


def _run(step: str, what: str, arguments: list[str], status: int = 0, **environment: str) -> Finding:
    """Run Python; `said` is the last line of its output, or of its errors if `status` is not 0 or not what came.

    pytest's is always that of its output.
    """
    start = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    passed = ran.returncode == status
    as_output = (passed and status == 0) or "pytest" in arguments
    lines = (ran.stdout if as_output else ran.stderr or ran.stdout).strip().splitlines()
    if status:
        passed = passed and len(lines) == 1
    if not passed:
        print(ran.stdout[-8000:], ran.stderr[-8000:], file=sys.stderr, flush=True)
    said = f"ended by signal {-ran.returncode}" if ran.returncode < 0 else lines[-1] if lines else ""
    return Finding(step, what, passed, said, time.monotonic() - start)


STEPS = {"pins": pins, "libraries": libraries, "modules": modules, "commands": commands, "tests": tests}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the record, a Markdown file")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), help="by default all")
    parser.add_argument("--run", type=Path, help="the folder of a finished run, to report and export")
    options = parser.parse_args()
    report = Report()
    report.add(f"# The GPU stack without a GPU, {datetime.now(UTC):%Y-%m-%d}\n")
    report.add(f"Command: `python -m benchmarks.gpu_stack`. Machine: {machine()}.\n")
    findings = []
    for step in options.only:
        for finding in commands(options.run) if step == "commands" else STEPS[step]():
            print(
                f"{'ok    ' if finding.passed else 'FAILED'} {finding.step}: {finding.what}: {finding.said}", flush=True
            )
            findings.append(finding)
    report.table(("step", "checked", "outcome", "s", "found"), [_row(finding) for finding in findings])
    report.table(("tests left out", "because"), list(LEFT_OUT.items()))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(report.lines).rstrip() + "\n")
    sys.exit(0 if all(finding.passed for finding in findings) else 1)


def _row(finding: Finding) -> tuple[str, ...]:
    seconds = "" if finding.seconds is None else f"{finding.seconds:.0f}"
    said = re.sub(rf"{ROOT}/|{tempfile.gettempdir()}/tmp\w+/", "", finding.said)
    return finding.step, finding.what, "passed" if finding.passed else "**failed**", seconds, said


if __name__ == "__main__":
    main()
