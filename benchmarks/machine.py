"""The machine that a record was made on, in words."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """Cores, processor, memory, load and Python."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores of {cpu}, {gib:.0f} GiB, no GPU, load {os.getloadavg()[0]:.1f} at the "
        f"beginning, Python {platform.python_version()}"
    )
