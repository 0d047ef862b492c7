"""The memory of freed tensors is kept for the next ones."""

import os

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA it is torch's allocator that keeps memory")

# Page faults of a tensor as large as the one freed before it: as glibc does by default, and with the patch.
FAULTS = """
import resource, torch

def faults(size=64 << 18):
    found = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(size).sum()
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(found[1:])

from verl_relift.upstream.speed.malloc import keep_freed_memory
upstream = faults()
keep_freed_memory()
print(upstream, faults())
"""


@pytest.mark.skipif(any(name.startswith("MALLOC_") for name in os.environ), reason="the environment sets malloc")
def test_glibc_still_gives_the_memory_of_freed_tensors_back(python):
    """The day this fails, `keep_freed_memory` can go."""
    ran = python(FAULTS)
    assert ran.returncode == 0, ran.stderr
    upstream, patched = map(int, ran.stdout.split())
    assert patched * 10 < upstream


def test_the_users_settings_of_malloc_are_kept(monkeypatch):
    import ctypes

    from verl_relift.upstream.speed.malloc import keep_freed_memory

    monkeypatch.setattr(ctypes, "CDLL", lambda *_: pytest.fail("malloc was set"))
    for name, value in (("MALLOC_TOP_PAD_", "1"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            keep_freed_memory.apply()
