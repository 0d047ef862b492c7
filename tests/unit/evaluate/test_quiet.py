"""Warnings of torch and vLLM don't stand among the command's lines."""

import logging
import os
import subprocess
import sys

import pytest

from verl_relift.evaluate.engine import prepare_environment

# Stands in for torch: shows what it would read when it is imported.
TORCH = """
import os, sys
print(os.environ.get("TORCH_CPP_LOG_LEVEL"), os.environ.get("VLLM_LOGGING_LEVEL"))
sys.exit(0)
"""


@pytest.mark.parametrize(("flags", "levels"), [((), "ERROR ERROR\n"), (("--verbose",), "None None\n")])
def test_the_levels_are_set_before_torch_is_imported(tmp_path, flags, levels):
    (tmp_path / "torch.py").write_text(TORCH)
    unset = ("TORCH_CPP_LOG_LEVEL", "VLLM_LOGGING_LEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-m", "verl_relift.evaluate", *flags]
    environment["PYTHONPATH"] = str(tmp_path)
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.stdout == levels, ended.stderr


@pytest.mark.parametrize("verbose", [False, True])
def test_torch_says_nothing_of_a_toolkit_without_a_gpu(monkeypatch, verbose):
    logger = logging.getLogger("torch.utils.cpp_extension")
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    prepare_environment(1, verbose)
    assert logger.isEnabledFor(logging.WARNING) is verbose
    logger.manager._clear_cache()
