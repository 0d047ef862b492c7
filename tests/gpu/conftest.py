"""Shared by all GPU tests: the reason to skip them, and the record of what they measure."""

import importlib.util
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
_PACKAGES = ("torch", "megatron-core", "mbridge", "transformer-engine", "vllm", "verl", "transformers")


def pytest_collection_modifyitems(items):
    """Mark all tests of this folder `gpu`, and skip them without a CUDA device."""
    here = [item for item in items if Path(__file__).parent in Path(item.fspath).parents]
    for item in here:
        item.add_marker(pytest.mark.gpu)
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def specs() -> list[str]:
    """Return the layer specs that this machine can run."""
    return ["local", *(["transformer_engine"] if importlib.util.find_spec("transformer_engine") else [])]


@pytest.fixture(scope="session")
def record():
    """A function `record(figure, value)` that adds a row to a dated file in benchmarks/results.

    The file names the hardware and the versions.
    """
    rows: list[tuple[str, str]] = []
    yield lambda figure, value: rows.append((figure, value))
    if not rows:
        return
    device = torch.cuda.get_device_properties(0)
    date = datetime.now(UTC).date()
    name = device.name.lower().replace(" ", "-")
    text = [
        f"# Tests on a GPU, {date}",
        "",
        "Command: `python -m pytest tests/gpu`. "
        f"Machine: {torch.cuda.device_count()} x {device.name} ({device.total_memory / 2**30:.0f} GiB), "
        f"CUDA {torch.version.cuda}. Versions: {', '.join(_versions())}.",
        "",
        "| figure | measured |",
        "|---|---|",
        *(f"| {figure} | {value} |" for figure, value in rows),
    ]
    (RESULTS / f"{date}-gpu-tests-{name}.md").write_text("\n".join(text) + "\n")


def _versions():
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
