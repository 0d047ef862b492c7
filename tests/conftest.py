"""Which tests may run side by side."""

from pathlib import Path

import pytest

RUNS = {"integration", "slurm"}  # whole runs: one after the other, or two would share the cores and the memory of one


def pytest_collection_modifyitems(items):
    """Group the tests for `pytest --dist loadgroup`: all runs together, other tests by file."""
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here)
        item.add_marker(pytest.mark.xdist_group("runs" if path.parts[0] in RUNS else str(path)))
