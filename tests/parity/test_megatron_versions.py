"""The parity tests on the CPU stack, with the megatron-core version of the GPU stack."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GPU_VERSION = re.search(r"^megatron-core==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE).group(1)


@pytest.mark.slow
def test_parity_holds_on_the_megatron_core_of_the_gpu_stack(tmp_path):
    """The wheel is for Python 3.12 only because of a compiled helper for data sets; the rest is plain Python."""
    uv = Path(sys.executable).with_name("uv")
    target = tmp_path / "site"
    options = ["--no-deps", "--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_31"]
    install = [str(uv), "pip", "install", "-q", "--target", str(target), *options]
    subprocess.run([*install, f"megatron-core=={GPU_VERSION}"], check=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": f"{target}:{ROOT}"}
    version = "import megatron.core; print(megatron.core.__version__)"
    found = subprocess.run([sys.executable, "-c", version], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == GPU_VERSION
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/parity"]
    result = subprocess.run([*tests, "-m", "not slow"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:]
