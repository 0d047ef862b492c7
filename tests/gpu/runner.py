"""Run the steps that have no result yet, each in a process of its own, and keep the summary up to date."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from .steps import STEPS, Step

# What a step's processes have in their environment, so that those it left behind are found.
MARK = "VERL_RELIFT_KIT_STEP"
# Between being asked to end and being killed.
GRACE = 15.0
# sysexits.h: try again, as the training command's
STEPS_LEFT = os.EX_TEMPFAIL
# A rehearsal runs on few cores, which others may use too.
_ON_CPU = 4.0
_FINISHED = ("ok", "failed", "skipped", "stopped")


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        output: folder of the results; a later command with the same folder continues.
        copy: folder that gets the summary after every step.
        seconds: of the whole command.
        device: `cuda` or `cpu`.
        steps: names of the steps to run again; None: those without a result.
        model: folder of Qwen2.5-Coder-0.5B.
        gsm8k: folder of GSM8K.
    """

    output: Path
    copy: Path | None
    seconds: float
    device: str
    steps: list[str] | None
    model: Path | None
    gsm8k: Path


def device() -> str:
    """Return `cuda` if there is an NVIDIA device, else `cpu`."""
    return "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"


def run(request: Request) -> int:
    """Run the steps.

    Returns:
        0: every step has a result and none failed. 1: one failed. `STEPS_LEFT`: give the command again.
    """
    deadline = time.monotonic() + request.seconds
    request.output.mkdir(parents=True, exist_ok=True)
    for step in STEPS:
        if step.name in request.steps if request.steps else not _finished(request.output, step):
            left = deadline - time.monotonic() - GRACE
            if left < step.needs:
                print(f"{step.name}: {left:.0f} s are left, {step.needs:.0f} are needed; give the command again")
                break
            limit = step.limit * (_ON_CPU if request.device == "cpu" else 1.0)
            _run_step(step, request, min(limit, left), cut_off=left < limit)
            summarize(request)
    results = [_result(request.output, step) for step in STEPS]
    if any(result is None or result["status"] not in _FINISHED for result in results):
        return STEPS_LEFT
    return 1 if any(result["status"] in ("failed", "stopped") for result in results) else 0


def _run_step(step: Step, request: Request, seconds: float, cut_off: bool) -> None:
    """Run one step, end what it leaves, and complete its result.

    Args:
        step: the step.
        request: what the command is given.
        seconds: after which the step is stopped.
        cut_off: they are fewer than the step's limit; if it is stopped, the next command runs it again.
    """
    folder, path = request.output / "work" / step.name, _path(request.output, step)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"{__package__}.step", step.name, "--report", str(path), "--folder", str(folder)]
    command += ["--device", request.device, "--seconds", f"{seconds:.0f}", "--gsm8k", str(request.gsm8k)]
    command += ["--model", str(request.model.resolve())] if request.model else []
    print(f"{time.strftime('%H:%M:%S')} {step.name}: {step.says} (up to {seconds:.0f} s)", flush=True)
    started, mark = time.monotonic(), f"{os.getpid()}.{step.name}"
    with open(path.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, MARK: mark, "PYTHONUNBUFFERED": "1"},
        )
        timed_out = False
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    end_marked(mark)
    result = _result(request.output, step) or {"step": step.name, "device": request.device, "figures": {}, "checks": []}
    if result.get("status") not in _FINISHED:
        result["status"] = "failed" if not timed_out else "cut off" if cut_off else "stopped"
    result["exit status"] = process.returncode
    result["seconds"] = round(time.monotonic() - started, 1)
    if result["status"] not in ("ok", "skipped"):
        result["log"] = path.with_suffix(".log").read_text(errors="replace")[-4000:]
    path.write_text(json.dumps(result, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{time.strftime('%H:%M:%S')} {step.name}: {result['status']} after {result['seconds']:.0f} s", flush=True)


def end_marked(mark: str) -> None:
    """Kill the processes that a step has left behind.

    Args:
        mark: the value of `MARK` in their environment.
    """
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def summarize(request: Request) -> None:
    """Write all results to kit.json and kit.md and the logs to logs.tar.gz, and copy the three."""
    results = [result for step in STEPS if (result := _result(request.output, step))]
    (request.output / "kit.json").write_text(json.dumps(results, indent=1))
    (request.output / "kit.md").write_text(table(results))
    with tarfile.open(request.output / "logs.tar.gz", "w:gz") as archive:
        for log in sorted(request.output.glob("*.log")):
            archive.add(log, log.name)
    if request.copy:
        request.copy.mkdir(parents=True, exist_ok=True)
        for name in ("kit.json", "kit.md", "logs.tar.gz"):
            shutil.copy(request.output / name, request.copy / name)


def table(results: list[dict]) -> str:
    """Return the results as Markdown: a row per step, then what each found."""
    lines = ["| step | device | result | seconds | checks |", "|---|---|---|---|---|"]
    for result in results:
        held = sum(check["holds"] for check in result["checks"])
        cells = (result["step"], result["device"], result["status"], f"{result['seconds']:.0f}")
        lines.append(f"| {' | '.join(cells)} | {held} of {len(result['checks'])} hold |")
    for result in results:
        lines += ["", f"## {result['step']}", ""]
        lines += [result["reason"], ""] if "reason" in result else []
        lines += ["| what | found | bar |", "|---|---|---|"]
        lines += [f"| {name} | {_cell(value)} | |" for name, value in result["figures"].items()]
        for check in result["checks"]:
            bar = check["wanted"] if check["holds"] else f"**failed**: {check['wanted']}"
            lines.append(f"| {check['name']} | {_cell(check['found'])} | {bar} |")
        lines += [f"| {error['part']} | {_cell(error['error'])} | **raised** |" for error in result.get("errors", ())]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")[:300]


def _path(output: Path, step: Step) -> Path:
    return output / f"{STEPS.index(step) + 1:02d}-{step.name}.json"


def _result(output: Path, step: Step) -> dict | None:
    path = _path(output, step)
    return json.loads(path.read_text()) if path.exists() else None


def _finished(output: Path, step: Step) -> bool:
    result = _result(output, step)
    return result is not None and result["status"] in _FINISHED
