"""The memory of freed tensors is kept for the next ones."""

import ctypes

import pytest

from verl_relift.upstream.speed.malloc import keep_freed_memory


def test_glibc_still_gives_the_memory_of_freed_tensors_back(bare_process):
    """The day this fails, `keep_freed_memory` can go."""
    faults = bare_process["faults"]
    assert faults["patched"] * 10 < faults["upstream"]


def test_freed_memory_goes_back_when_it_is_asked_for(bare_process):
    assert bare_process["given back"] > 32 << 20  # of the 64 MiB of the last tensor


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TOP_PAD_", "1"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")]
)
def test_the_users_settings_of_malloc_are_kept(monkeypatch, name, value):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: pytest.fail("malloc was set"))
    monkeypatch.setenv(name, value)
    keep_freed_memory.apply()
