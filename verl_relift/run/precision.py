"""Which precision a run computes in on a CPU: bf16 with fp32 masters, if model and processor make it the faster one."""

import json
import re
from functools import cache
from pathlib import Path

from .threads import MIN_WIDTH

# Products in bf16 are then instructions of the processor; elsewhere they take longer than in fp32.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
_CPU = Path("/proc/cpuinfo")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # owner/model


@cache
def bf16_instructions() -> tuple[str, ...]:
    """Return the processor's flags for matrix products in bf16."""
    try:
        flags = next((line.split() for line in _CPU.read_text().splitlines() if line.startswith("flags")), [])
    except OSError:
        return ()
    return tuple(name for name in _INSTRUCTIONS if name in flags)


def cpu_dtype(model: str) -> str:
    """Return the dtype of training and generation on this CPU: `bfloat16` or `float32`.

    The time of a narrow model goes into calls, not into products, and fp32 is exact.

    Args:
        model: a model's folder, or its name on the hub, where models are wide.
    """
    if not bf16_instructions() or not isinstance(model, str):
        return "float32"
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return "bfloat16" if _HUB_NAME.fullmatch(model) and not folder.parent.is_dir() else "float32"
    try:
        width = json.loads((folder / "config.json").read_text()).get("hidden_size", 0)
    except (OSError, ValueError, AttributeError):
        return "float32"  # the checks of the model say what is wrong
    return "bfloat16" if isinstance(width, int) and width >= MIN_WIDTH else "float32"
