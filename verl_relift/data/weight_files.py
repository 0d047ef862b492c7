"""Whether files of weights are complete. A download that broke off or was never begun has their names, too."""

from pathlib import Path

_LFS = b"version https://git-lfs"  # begins the file that git leaves in place of one that is stored elsewhere


def fault(path: Path) -> str | None:
    """Return why a safetensors file is not complete, or None. Reads its header and its size, not its weights."""
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:
        if file.read(len(_LFS)) == _LFS:
            return "is a pointer of Git LFS, not the weights; run git lfs pull"
    try:
        with safe_open(path, framework="numpy"):
            return None
    except (SafetensorError, OSError, ValueError) as error:
        return f"is not a complete safetensors file ({error}); download it again"
