"""Megatron and mbridge still need a CUDA device, and without one run with ours."""

import importlib
import inspect

import pytest
import torch
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU platform is not used beside a GPU")


def source_of(module: str) -> str:
    return inspect.getsource(importlib.import_module(module))


def test_torch_is_not_patched_for_anyone_but_megatron():
    layers = importlib.import_module("megatron.core.tensor_parallel.layers")
    assert layers.torch.empty(2, device="cuda").device.type == "cpu"
    assert layers.torch.cuda.current_device() == torch.device("cpu")
    assert layers.torch.Tensor is torch.Tensor
    with pytest.raises((AssertionError, RuntimeError)):
        torch.empty(2, device="cuda")
    with pytest.raises((AssertionError, RuntimeError)):
        torch.cuda.current_device()


def test_tensor_type_is_restored_after_an_optimizer_check():
    from verl_relift.upstream.cpu.megatron import _with_cuda_type_names

    seen = []
    _with_cuda_type_names(lambda: seen.append(torch.zeros(1).type()))()
    assert seen == ["torch.cuda.FloatTensor"]
    assert torch.zeros(1).type() == "torch.FloatTensor"


def test_megatron_still_compiles_functions_and_asserts_a_cuda_setting():
    """The day this fails, `set_environment` can lose one of its settings."""
    assert "jit_fuser = torch.compile" in source_of("megatron.core.jit")
    assert 'os.environ.get("CUDA_DEVICE_MAX_CONNECTIONS") != "1"' in source_of("megatron.core.tensor_parallel.layers")


def test_megatron_still_hard_wires_cuda():
    """The day this fails, `see_cpu_for_cuda` can go."""
    assert "torch.cuda.current_device()" in source_of("megatron.core.tensor_parallel.layers")
    assert 'device="cuda"' in source_of("megatron.core.optimizer.clip_grads").replace("'", '"')
    assert "torch.cuda.current_device()" in source_of("mbridge.core.bridge") + source_of("mbridge.core.util")


def test_mbridge_still_moves_models_to_cuda():
    """The day this fails, `keep_modules_on_cpu` can go."""
    assert ".cuda(torch.cuda.current_device())" in source_of("mbridge.core.util")


def test_megatron_still_asks_for_cudas_generator(megatron_process):
    """The day this fails, `use_cpu_generator` can go."""
    upstream, patched = megatron_process["generator"]
    # "not compiled with CUDA enabled", or the CUDA build's "no NVIDIA driver"
    assert ("CUDA" in upstream or "NVIDIA" in upstream) and patched is None
    assert megatron_process["set"]


def test_optimizers_still_refuse_tensors_of_a_cpu(megatron_process):
    """The day this fails, `accept_cpu_types_in_optimizers` can go."""
    assert megatron_process["clip"] == ["AssertionError: ", None]
    upstream, patched = megatron_process["half"]
    assert "torch.cuda.FloatTensor" in upstream and patched is None


def test_the_distributed_optimizer_still_refuses_tensors_of_a_cpu(megatron_process):
    """The day this fails, `accept_cpu_types_in_distributed_optimizer` can go."""
    upstream, patched = megatron_process["distributed"]
    assert "torch.cuda.FloatTensor" in upstream and patched is None


@pytest.mark.parametrize(
    "name",
    [
        "megatron.core.models.common.language_module.language_module:LanguageModule.setup_embeddings_and_output_layer",
        "megatron.core.dist_checkpointing.exchange_utils:exchange_loaded_tensors_broadcast",
        "megatron.core.dist_checkpointing.exchange_utils:exchange_loaded_tensors_gather_rounds",
    ],
)
def test_megatron_still_moves_tensors_to_cuda(name):
    """The day this fails, the function needs `tie_embeddings_on_cpu` or `exchange_on_cpu` no more."""
    module = importlib.import_module(name.partition(":")[0])
    source = inspect.getsource(ORIGINALS[name])
    # The exchange by rounds does it in a helper.
    assert ".cuda()" in source or ".cuda()" in inspect.getsource(module._get_empty_tensor_for_exchange) + source_of(
        module.__name__
    )
