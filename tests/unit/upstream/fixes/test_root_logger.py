"""Warnings are seen although a dependency of vLLM turns them off."""

import subprocess
import sys

import pytest

SCRIPT = """
import logging
{plugin}
import model_hosting_container_standards.logging_config
logging.basicConfig()
logging.getLogger("some.library").warning("look here")
print(logging.getLogger().level)
"""


def run(plugin: str, **environment) -> subprocess.CompletedProcess:
    import os

    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(plugin=plugin)],
        capture_output=True,
        text=True,
        timeout=300,
        env={k: v for k, v in os.environ.items() if k not in ("LOG_LEVEL", "SAGEMAKER_CONTAINER_LOG_LEVEL")}
        | environment,
    )


PATCHED = "from verl_relift.upstream.fixes.root_logger import let_warnings_through; let_warnings_through()"


def test_a_dependency_of_vllm_still_silences_warnings():
    """The day this fails, `let_warnings_through` can go."""
    result = run("")
    assert result.stdout.endswith("40\n") and "look here" not in result.stderr, result.stdout + result.stderr


def test_warnings_are_seen():
    result = run(PATCHED)
    assert result.stdout.endswith("30\n") and "look here" in result.stderr, result.stdout + result.stderr


@pytest.mark.parametrize("variable", ["LOG_LEVEL", "SAGEMAKER_CONTAINER_LOG_LEVEL"])
def test_a_level_that_was_asked_for_stays(variable):
    assert run(PATCHED, **{variable: "50"}).stdout.endswith("50\n")
