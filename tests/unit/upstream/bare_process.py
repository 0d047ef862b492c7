"""What torch, glibc and math-verify are in a process without verl's plugin: one line of JSON.

Run by the fixture `bare_process`; the tests of several modules read its findings.
"""

import json
import os
import resource
from pathlib import Path

import torch

from verl_relift.upstream.registry import ORIGINALS
from verl_relift.upstream.speed.malloc import give_back, keep_freed_memory


def faults(size: int = 64 << 18) -> int:
    """Page faults of a tensor as large as the one freed before it."""
    found = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(size).sum()
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(found[1:])


def resident() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    device_module = sorted(vars(torch.cpu))
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        del os.environ[name]
    upstream = faults()
    keep_freed_memory()
    findings = {"torch.cpu": device_module, "faults": {"upstream": upstream, "patched": faults()}}
    kept = resident()
    give_back()
    findings["given back"] = kept - resident()

    from verl_relift.upstream.fixes import math_verify

    math_verify.apply()
    print("FINDINGS", json.dumps({**findings, "replaced in a judge": sorted(ORIGINALS)}))


if __name__ == "__main__":
    main()
