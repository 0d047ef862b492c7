"""Describes the machine that a record is made on."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """Return cores, processor, memory, load average and Python version in words."""
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
        f"start, Python {platform.python_version()}"
    )
