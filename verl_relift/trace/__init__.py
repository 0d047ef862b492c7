"""The real training engine without its memory: peaks and allocations of one rank, on a machine without a GPU.

verl's Megatron engine, this project's worker and the real losses run in one process that stands for one rank of many.
Large floating-point tensors have no memory, collectives do nothing, and kernels of CUDA are replaced by what they keep.

| module | contents |
|---|---|
| `work` | what a rank is to do, in plain values |
| `memory` | counts bytes by place, part and line of code |
| `phantom` | the modes of torch that make tensors without memory |
| `layers` | what stands in for Transformer Engine |
| `engine` | verl's engine and this project's worker as one rank of a fake group |
| `batch` | batches of random tokens |
| `step` | the passes of a step |
| `save`, `export` | a checkpoint, and the weights' way to vLLM |
| `rank` | the process of one rank |

Only `work` and this module can be imported where torch and verl must not be.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .work import Work

__all__ = ["TraceError", "Work", "trace"]

MAX_SECONDS = 1800


class TraceError(ValueError):
    """The engine cannot be built, or its step fails."""


def trace(config: DictConfig, work: Work, model: Mapping[str, Any]) -> dict[str, Any]:
    """Run the step of one rank in a process of its own.

    Args:
        config: the composed configuration.
        work: the rank and its micro-batches.
        model: contents of the model's `config.json`.

    Returns:
        What `step.trace_step` returns.

    Raises:
        TraceError: with one line that says what failed and where.
    """
    with tempfile.TemporaryDirectory(prefix="verl_relift_trace_") as name:
        folder = Path(name)
        config = config.copy()
        OmegaConf.resolve(config)
        config.actor_rollout_ref.model.path = str(folder / "model")
        OmegaConf.save(config, folder / "config.yaml")
        (folder / "work.json").write_text(json.dumps(asdict(work)))
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text(json.dumps(dict(model)))
        command = [sys.executable, "-m", "verl_relift.trace.rank", name]
        environment = {**os.environ, "TMPDIR": name}  # verl leaves locks of folders there
        result = subprocess.run(command, capture_output=True, text=True, timeout=MAX_SECONDS, env=environment)
        if result.returncode:
            raise TraceError(_reason(result.stdout + result.stderr))
        return json.loads((folder / "result.json").read_text())


_FRAME = re.compile(r'File "(.+)", line (\d+), in (\S+)')


def _reason(output: str) -> str:
    """Return the last exception in a process's output with the place where it was raised, in one line."""
    lines = [line.removeprefix("[rank0]: ").removeprefix("[rank0]:") for line in output.splitlines()]
    frames = [found for line in lines if (found := _FRAME.search(line))]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt)\b", line)]
    error = errors[-1] if errors else (lines or ["no output"])[-1]
    if not frames:
        return f"the training engine does not build: {error}"
    file, line, function = frames[-1].groups()
    return f"the training engine does not build: {error} ({'/'.join(Path(file).parts[-3:])}:{line}, in {function})"
