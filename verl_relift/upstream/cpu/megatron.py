"""Megatron-Core and mbridge on a CPU: their hard-wired CUDA calls and their type checks by string.

Megatron writes `torch.zeros(..., device="cuda")` and `torch.cuda.current_device()` throughout. Its modules get a
view of torch in which those mean the CPU; torch itself, and every other module's view of it, stays as it is.
"""

import functools
import os
from collections.abc import Callable
from types import ModuleType

import torch

from ..registry import Where, patch, replace, replaced_during
from ..view import View

_FACTORIES = ("zeros", "ones", "empty", "tensor", "full", "arange", "empty_like", "zeros_like", "ones_like", "rand")


@patch(
    where=Where.CPU,
    sets=("os.environ: TORCHDYNAMO_DISABLE, CUDA_DEVICE_MAX_CONNECTIONS, unless they are set",),
    upstream="Megatron compiles small functions with torch.compile, which takes a C++ compiler and minutes on a CPU; "
    "with tensor parallelism it asserts a CUDA setting that means nothing to gloo",
    canary="test_megatron_still_compiles_functions_and_asserts_a_cuda_setting",
)
def set_environment() -> None:
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")


# ---- torch as Megatron's modules see it ------------------------------------------------------------------------------


def _on_cpu(factory: Callable) -> Callable:
    @functools.wraps(factory)
    def make(*args, **kwargs):
        device = kwargs.get("device")
        if isinstance(device, int) or (device is not None and torch.device(device).type == "cuda"):
            kwargs["device"] = torch.device("cpu")
        return factory(*args, **kwargs)

    return make


_CUDA_VIEW = View(
    torch.cuda,
    current_device=lambda: torch.device("cpu"),
    synchronize=lambda *_: None,
    empty_cache=lambda: None,
    manual_seed=torch.manual_seed,
    get_rng_state=lambda *_: torch.get_rng_state(),
    set_rng_state=lambda state, *_: torch.set_rng_state(state),
)
_TORCH_VIEW = View(torch, cuda=_CUDA_VIEW, **{name: _on_cpu(getattr(torch, name)) for name in _FACTORIES})


@patch(
    where=Where.CPU,
    replaces=("megatron.core.*:torch", "mbridge.*:torch"),
    versions=("megatron-core", "mbridge"),
    upstream='their modules write `device="cuda"` and `torch.cuda.current_device()`; each gets a view of torch in '
    "which those mean the CPU",
    canary="test_megatron_still_hard_wires_cuda",
)
def see_cpu_for_cuda(module: ModuleType) -> None:
    if module.__dict__.get("torch") is torch:
        replace(module, "torch", _TORCH_VIEW)


@patch(
    where=Where.CPU,
    replaces=("megatron.core.transformer.module:MegatronModule.cuda",),
    versions=("megatron-core", "mbridge"),
    upstream="mbridge moves the model that it built to CUDA",
    canary="test_mbridge_still_moves_models_to_cuda",
)
def keep_modules_on_cpu(module: ModuleType) -> None:
    replace(module.MegatronModule, "cuda", lambda self, *_: self)


@patch(
    where=Where.CPU,
    replaces=(
        "megatron.core.tensor_parallel.random:_get_cuda_rng_state",
        "megatron.core.tensor_parallel.random:_set_cuda_rng_state",
    ),
    versions=("megatron-core",),
    upstream="Megatron keeps the state of CUDA's random number generators",
    canary="test_megatron_still_asks_for_cudas_generator",
)
def use_cpu_generator(random: ModuleType) -> None:
    replace(random, "_get_cuda_rng_state", lambda *_, **__: torch.get_rng_state())
    replace(random, "_set_cuda_rng_state", lambda state, *_, **__: torch.set_rng_state(state))


# ---- `param.type() == "torch.cuda.FloatTensor"` ----------------------------------------------------------------------


def _with_cuda_type_names(function: Callable) -> Callable:
    """Run `function` while `Tensor.type()` of a CPU tensor answers as a CUDA tensor's would.

    The checks compare strings inside long functions, so the answer is changed for their duration. They run in the
    worker's main thread, once at start (constructors) or on gradients (the clipping), and call nothing of ours.
    """

    @functools.wraps(function)
    def run(*args, **kwargs):
        original = torch.Tensor.type

        def type_name(tensor, *type_args, **type_kwargs):
            answer = original(tensor, *type_args, **type_kwargs)
            return answer.replace("torch.", "torch.cuda.", 1) if isinstance(answer, str) else answer

        with replaced_during(torch.Tensor, "type", type_name):
            return function(*args, **kwargs)

    return run


@patch(
    where=Where.CPU,
    replaces=(
        "megatron.core.optimizer.optimizer:clip_grad_by_total_norm_fp32",
        "megatron.core.optimizer.optimizer:Float16OptimizerWithFloat16Params.__init__",
    ),
    during=("torch:Tensor.type",),
    versions=("megatron-core",),
    upstream="the optimizers refuse parameters and gradients whose type's name is not one of CUDA's",
    canary="test_optimizers_still_refuse_tensors_of_a_cpu",
)
def accept_cpu_types_in_optimizers(optimizer: ModuleType) -> None:
    replace(optimizer, "clip_grad_by_total_norm_fp32", _with_cuda_type_names(optimizer.clip_grad_by_total_norm_fp32))
    half = optimizer.Float16OptimizerWithFloat16Params
    replace(half, "__init__", _with_cuda_type_names(half.__init__))


@patch(
    where=Where.CPU,
    replaces=("megatron.core.optimizer.distrib_optimizer:DistributedOptimizer.__init__",),
    during=("torch:Tensor.type",),
    versions=("megatron-core",),
    upstream="the distributed optimizer refuses parameters whose type's name is not one of CUDA's",
    canary="test_the_distributed_optimizer_still_refuses_tensors_of_a_cpu",
)
def accept_cpu_types_in_distributed_optimizer(module: ModuleType) -> None:
    optimizer = module.DistributedOptimizer
    replace(optimizer, "__init__", _with_cuda_type_names(optimizer.__init__))


# ---- `tensor.cuda()` -------------------------------------------------------------------------------------------------


def _with_cuda_as_identity(function: Callable) -> Callable:
    """Run `function` while `Tensor.cuda()` gives the tensor itself."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        with replaced_during(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor):
            return function(*args, **kwargs)

    return run


@patch(
    where=Where.CPU,
    replaces=(
        "megatron.core.models.common.language_module.language_module:LanguageModule.setup_embeddings_and_output_layer",
    ),
    during=("torch:Tensor.cuda",),
    versions=("megatron-core",),
    upstream="moves the embeddings that the first and the last pipeline stage share to CUDA to compare them",
    canary="test_megatron_still_moves_tensors_to_cuda",
)
def tie_embeddings_on_cpu(module: ModuleType) -> None:
    language_module, name = module.LanguageModule, "setup_embeddings_and_output_layer"
    replace(language_module, name, _with_cuda_as_identity(getattr(language_module, name)))


@patch(
    where=Where.CPU,
    replaces=(
        "megatron.core.dist_checkpointing.exchange_utils:exchange_loaded_tensors_broadcast",
        "megatron.core.dist_checkpointing.exchange_utils:exchange_loaded_tensors_gather_rounds",
    ),
    during=("torch:Tensor.cuda",),
    versions=("megatron-core",),
    upstream="data-parallel ranks, each of which reads a part of a checkpoint, move the parts to CUDA to exchange them",
    canary="test_megatron_still_moves_tensors_to_cuda",
)
def exchange_on_cpu(module: ModuleType) -> None:
    for name in ("exchange_loaded_tensors_broadcast", "exchange_loaded_tensors_gather_rounds"):
        replace(module, name, _with_cuda_as_identity(getattr(module, name)))
