"""All tests of this folder need a CUDA device."""

from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items):
    """Mark all tests of this folder `gpu`, and skip them without a CUDA device."""
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
