"""glibc keeps the memory of freed tensors for the next ones, as torch's allocator does on a GPU."""

import ctypes
import os

from ..registry import Where, patch

# Parameters of glibc's mallopt(3), from its malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BLOCK = 1 << 30  # bytes; larger blocks are rare enough to be given back
_keeps = False  # whether this process keeps freed memory
_MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


@patch(
    where=Where.CPU,
    sets=("mallopt(3): M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, unless the environment sets how malloc works",),
    upstream="glibc gives every block of over 32 MiB, and the end of its heap, back to the kernel; the next step gets "
    "the same memory as pages of zeros, each by a fault that takes microseconds on a virtual machine",
    canary="test_glibc_still_gives_the_memory_of_freed_tensors_back",
)
def keep_freed_memory() -> None:
    global _keeps
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in _MALLOC_VARIABLES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, -1)  # -1: the heap's end is never given back
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)
        _keeps = True


def give_back() -> None:
    """Give what freed tensors have left back to the kernel, where `keep_freed_memory` keeps it.

    The next update gets it again as pages of zeros, so this is for moments that need the memory and are rare.
    """
    if _keeps:
        ctypes.CDLL(None).malloc_trim(0)
