"""Processes that several modules of tests look into: starting one for each test would take minutes."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `code` in a process of its own."""
    return _run(["-c", textwrap.dedent(code)], environment)


def _run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=ROOT)


def _findings(*arguments: str, **environment: str) -> dict:
    ran = _run(["-m", *arguments], environment)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return json.loads(ran.stdout.split("FINDINGS ", 1)[1])


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs code in a process of its own."""
    return run_python


@pytest.fixture(scope="session")
def bare_process() -> dict:
    """What `bare_process.py` finds."""
    return _findings("tests.unit.upstream.bare_process")


@pytest.fixture(scope="session")
def unpatched_process() -> dict:
    """What `unpatched_process.py` finds where speed patches are off."""
    return _findings("tests.unit.upstream.unpatched_process", VERL_RELIFT_SPEED_PATCHES="0")


@pytest.fixture(scope="session")
def megatron_process() -> dict:
    """What `megatron_process.py` finds."""
    return _findings("tests.unit.upstream.megatron_process")


@pytest.fixture(scope="session")
def vllm_process(tmp_path_factory) -> dict:
    """What `vllm_process.py` finds."""
    return _findings("tests.unit.upstream.vllm_process", str(tmp_path_factory.mktemp("model")))
