"""What an accelerator has, and what this machine has."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Accelerator:
    """Memory in bytes as the driver reports it; dense bf16 FLOP/s and memory bytes/s of the vendor's data sheet."""

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
    "l40s": Accelerator("NVIDIA L40S", 46068 * _MIB, 362e12, 0.86e12),
}


def visible_gpu() -> Accelerator | None:
    """The smallest GPU that ``nvidia-smi`` lists, or None: a head node may have none.

    Asking torch would take memory of the first GPU for a context in this process.
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
    """Bytes that processes started now can take on this machine, its control group's limit included."""
    import psutil

    available = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip().isdigit():
        cache = _inactive_file(Path("/sys/fs/cgroup/memory.stat"))
        available = min(available, int(limit.read_text()) - int(used.read_text()) + cache)
    return available


def _inactive_file(stat: Path) -> int:
    """Page cache that the kernel gives back first."""
    for line in stat.read_text().splitlines() if stat.exists() else ():
        name, value = line.split()
        if name == "inactive_file":
            return int(value)
    return 0


def frees_at_once() -> bool:
    """Whether glibc returns freed tensors to the system, see ``memory.HEAP_FACTOR``."""
    return "MALLOC_MMAP_THRESHOLD_" in os.environ
