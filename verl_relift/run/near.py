"""What a path that does not exist was probably meant to be."""

import difflib
from collections.abc import Callable
from pathlib import Path


def nearest(path: Path, fits: Callable[[Path], bool] = Path.exists) -> Path | None:
    """Return the path beside a missing one whose name is most like it, also where a folder above is misspelt.

    Args:
        path: it does not exist.
        fits: whether a path is of the kind that is wanted.
    """
    folder = path.parent
    if not folder.is_dir():
        above = None if folder == path else nearest(folder, Path.is_dir)
        if above is None:
            return None
        folder = above
    try:
        names = {other.name for other in folder.iterdir() if not other.name.startswith(".") and fits(other)}
    except OSError:
        return None
    close = difflib.get_close_matches(path.name, sorted(names), n=3, cutoff=0.65)
    # A suffix that both have, such as .parquet, makes no two names alike.
    alike = (name for name in close if difflib.SequenceMatcher(None, path.stem, Path(name).stem).ratio() >= 0.6)
    return next((folder / name for name in alike), None)


def did_you_mean(path: str, fits: Callable[[Path], bool] = Path.exists) -> str | None:
    """Return a question that names the path that was probably meant, or None."""
    found = nearest(Path(path).expanduser(), fits)
    return f"did you mean {found}?" if found is not None else None
