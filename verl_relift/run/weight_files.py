"""Whether files of weights are whole. A download that broke off or was never begun has their names, too."""

import json
import struct
from pathlib import Path

_LFS = b"version https://git-lfs"  # begins the file that git leaves in place of one that is kept elsewhere
_MOST_HEADER = 100 << 20  # bytes; safetensors reads no longer one


def fault(path: Path) -> str | None:
    """Return why a safetensors file is not whole, or None. Reads its header and its size, not its weights."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(len(_LFS))
        if start == _LFS:
            return "is a pointer of Git LFS, not the weights; run git lfs pull"
        file.seek(0)
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > min(size, _MOST_HEADER):
            return "is no safetensors file, or a part of one; download it again"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "is no safetensors file; download it again"
    expected = 8 + length + max(ends, default=0)
    return f"has {size:,} of {expected:,} bytes; download it again" if size < expected else None
