"""Knows the memory and speed of GPUs, and the memory of this machine."""

import difflib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Accelerator:
    """A GPU.

    Attributes:
        name: name of the product.
        memory: bytes, as the driver reports them.
        flops: dense bf16 FLOP/s of the vendor's data sheet.
        bandwidth: memory bytes/s of the vendor's data sheet.
    """

    name: str
    memory: int
    flops: float | None = None
    bandwidth: float | None = None


_MIB = 1 << 20
KNOWN = {
    "b200": Accelerator("NVIDIA B200", 183359 * _MIB, 2250e12, 8.0e12),
    "h200": Accelerator("NVIDIA H200", 143771 * _MIB, 989e12, 4.8e12),
    "h100": Accelerator("NVIDIA H100 80GB SXM", 81559 * _MIB, 989e12, 3.35e12),
    "a100-80g": Accelerator("NVIDIA A100 80GB SXM", 81920 * _MIB, 312e12, 2.04e12),
    "a100-40g": Accelerator("NVIDIA A100 40GB SXM", 40960 * _MIB, 312e12, 1.56e12),
    "rtx4090": Accelerator("NVIDIA GeForce RTX 4090", 24564 * _MIB, 165e12, 1.01e12),
    "l40s": Accelerator("NVIDIA L40S", 46068 * _MIB, 362e12, 0.86e12),
}


_ALIASES = {"4090": "rtx4090", "h100-80g": "h100", "h200-141g": "h200", "l40s-48g": "l40s", "rtx4090-24g": "rtx4090"}


def named(name: str) -> Accelerator:
    """Return the GPU of a name as people write it: `H100`, `h100-80GB`, `NVIDIA RTX 4090`.

    Raises:
        ValueError: none or several have this name; the message says which there are.
    """
    short = re.sub(r"nvidia|geforce|sxm\d?|pcie", "", name.lower())
    short = re.sub(r"[\s_-]+", "-", short).strip("-").replace("rtx-", "rtx").removesuffix("b")
    key = next((key for key in (name.lower(), short, _ALIASES.get(short)) if key in KNOWN), None)
    if key is None:
        close = [known for known in KNOWN if known.startswith(short)] or difflib.get_close_matches(short, KNOWN)
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"{name!r} is not known; {meant}known are {', '.join(KNOWN)}; for others use --gpu-memory GIB")
    return KNOWN[key]


def visible_gpu() -> Accelerator | None:
    """Return the smallest GPU that `nvidia-smi` lists, or None, for example on a head node.

    It does not use torch, which would create a context in the memory of the first GPU.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    result = subprocess.run(query, capture_output=True, text=True, timeout=30)
    if result.returncode != 0:
        return None
    found = []
    for line in result.stdout.splitlines():
        name, _, memory = line.rpartition(",")
        if memory.strip().isdigit():
            known = next((k for k in KNOWN.values() if k.memory == int(memory) * _MIB), None)
            found.append(known or Accelerator(name.strip(), int(memory) * _MIB))
    return min(found, key=lambda gpu: gpu.memory, default=None)


def available_memory() -> int:
    """Return the bytes available to new processes on this machine, within the limit of its control group."""
    import psutil

    available, limit = psutil.virtual_memory().available, _limit()
    if limit is not None:
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        available = min(available, limit - used + _inactive_file(Path("/sys/fs/cgroup/memory.stat")))
    return available


def whole_memory() -> int:
    """Return the bytes that this machine, or its control group, has in all."""
    import psutil

    whole, limit = psutil.virtual_memory().total, _limit()
    return whole if limit is None else min(whole, limit)


def _limit() -> int | None:
    """Return the bytes that the control group may have; None for no limit."""
    limit = Path("/sys/fs/cgroup/memory.max")
    said = limit.read_text().strip() if limit.exists() else ""
    return int(said) if said.isdigit() else None


def _inactive_file(stat: Path) -> int:
    """Return the bytes of page cache that the kernel reclaims first."""
    for line in stat.read_text().splitlines() if stat.exists() else ():
        name, value = line.split()
        if name == "inactive_file":
            return int(value)
    return 0


def frees_at_once() -> bool:
    """Return whether glibc returns freed tensors to the system, see `memory.HEAP_FACTOR`."""
    return "MALLOC_MMAP_THRESHOLD_" in os.environ
