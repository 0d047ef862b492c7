"""Megatron-Core on a CPU: its hard-wired CUDA calls, its type checks by string, and its checkpoints.

Megatron writes ``torch.zeros(..., device="cuda")`` and ``torch.cuda.current_device()`` throughout. Its modules get a
view of torch in which those mean the CPU; torch itself, and every other module's view of it, stays as it is.
"""

import functools
import importlib
import os
import queue
import types
from collections.abc import Callable
from types import ModuleType

import torch

from .. import versions as upstream
from ..post_import import after_import, after_import_of_package

_FACTORIES = ("zeros", "ones", "empty", "tensor", "full", "arange", "empty_like", "zeros_like", "ones_like", "rand")
_PACKAGES = ("megatron.core", "mbridge")


def install_after_import() -> None:
    """Arrange for every patch of this module to run when Megatron is imported in this process."""
    # Megatron compiles small functions with torch.compile, which needs a C++ compiler and minutes on a CPU.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # Megatron asserts it with tensor parallelism; it means nothing to gloo.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    for package in _PACKAGES:
        after_import_of_package(package, see_cpu_for_cuda)
    after_import("megatron.core.transformer.module", _keep_modules_on_cpu)
    after_import("megatron.core.tensor_parallel.random", _use_cpu_generator)
    after_import("megatron.core.optimizer.optimizer", _accept_cpu_types_in_optimizer)
    after_import("megatron.core.optimizer.distrib_optimizer", _patch_distributed_optimizer)
    after_import("megatron.core.dist_checkpointing.strategies.filesystem_async", _save_without_processes)
    after_import("megatron.core.dist_checkpointing.exchange_utils", _exchange_on_cpu)
    after_import("megatron.core.models.common.language_module.language_module", _tie_embeddings_on_cpu)
    after_import("verl.workers.engine.megatron.transformer_impl", _register_engines)
    after_import("verl.workers.config.engine", _accept_fp32)


# ---- torch as Megatron's modules see it ------------------------------------------------------------------------------


class _View(types.ModuleType):
    """A module that shows another one except for what is set on it."""

    def __init__(self, shown: ModuleType):
        super().__init__(shown.__name__)
        self.__dict__["_shown"] = shown

    def __getattr__(self, name: str):
        return getattr(self.__dict__["_shown"], name)


def _on_cpu(factory: Callable) -> Callable:
    @functools.wraps(factory)
    def make(*args, **kwargs):
        device = kwargs.get("device")
        if isinstance(device, int) or (device is not None and torch.device(device).type == "cuda"):
            kwargs["device"] = torch.device("cpu")
        return factory(*args, **kwargs)

    return make


def _make_torch_view() -> ModuleType:
    view, cuda = _View(torch), _View(torch.cuda)
    for name in _FACTORIES:
        setattr(view, name, _on_cpu(getattr(torch, name)))
    cuda.current_device = lambda: torch.device("cpu")
    cuda.synchronize = lambda *_: None
    cuda.empty_cache = lambda: None
    cuda.manual_seed = torch.manual_seed
    cuda.get_rng_state = lambda *_: torch.get_rng_state()
    cuda.set_rng_state = lambda state, *_: torch.set_rng_state(state)
    view.cuda = cuda
    return view


_TORCH_VIEW = _make_torch_view()


def see_cpu_for_cuda(module: ModuleType) -> None:
    """Replace the global ``torch`` of one Megatron module by the view in which CUDA means the CPU."""
    if module.__dict__.get("torch") is torch:
        module.torch = _TORCH_VIEW


def _keep_modules_on_cpu(module: ModuleType) -> None:
    # mbridge moves a built model with `.cuda(device)`.
    module.MegatronModule.cuda = lambda self, *_: self


def _use_cpu_generator(random: ModuleType) -> None:
    upstream.require("megatron-core")
    random._get_cuda_rng_state = lambda *_, **__: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)


# ---- `param.type() == "torch.cuda.FloatTensor"` ----------------------------------------------------------------------


def _with_cuda_type_names(function: Callable) -> Callable:
    """Run ``function`` while ``Tensor.type()`` of a CPU tensor answers as a CUDA tensor's would.

    The checks compare strings inside long functions, so the answer is changed for their duration. They run in the
    worker's main thread, once at start (constructors) or on gradients (the clipping), and call nothing of ours.
    """

    @functools.wraps(function)
    def run(*args, **kwargs):
        original = torch.Tensor.type

        def type_name(tensor, *type_args, **type_kwargs):
            answer = original(tensor, *type_args, **type_kwargs)
            return answer.replace("torch.", "torch.cuda.", 1) if isinstance(answer, str) else answer

        torch.Tensor.type = type_name
        try:
            return function(*args, **kwargs)
        finally:
            torch.Tensor.type = original

    return run


def _accept_cpu_types_in_optimizer(optimizer: ModuleType) -> None:
    optimizer.clip_grad_by_total_norm_fp32 = _with_cuda_type_names(optimizer.clip_grad_by_total_norm_fp32)
    half = optimizer.Float16OptimizerWithFloat16Params
    half.__init__ = _with_cuda_type_names(half.__init__)


# ---- the distributed optimizer's checkpoints -------------------------------------------------------------------------


def _patch_distributed_optimizer(module: ModuleType) -> None:
    """Make ``DistributedOptimizer`` save and load exactly with torch's own AdamW.

    Four upstream faults, all hidden where Transformer Engine's or Apex's optimizer is installed:

    1. in fp32 the parameter is its own master copy, and loading copies in place into a leaf that requires grad;
    2. AdamW keeps ``step`` per parameter; loading gives all parameters one shared tensor, or writes the value of the
       running process back over the loaded one, so bias correction is wrong after a resume;
    3. loading in a fresh process asserts on AdamW's state, which is empty until the first step;
    4. the fully reshardable format has no ``step`` per parameter, but loading it looks for one.
    """
    optimizer = module.DistributedOptimizer
    optimizer.__init__ = _with_cuda_type_names(optimizer.__init__)
    set_states = optimizer._set_main_param_and_optimizer_states

    @functools.wraps(set_states)
    @torch.no_grad()
    def set_states_without_step(self, model_param, tensors):
        # `load_with_own_steps` gives the real one.
        set_states(self, model_param, {"step": torch.tensor(0.0), **tensors})

    optimizer._set_main_param_and_optimizer_states = set_states_without_step

    load_state_dict = optimizer.load_state_dict

    @functools.wraps(load_state_dict)
    def load_with_own_steps(self, state_dict):
        result = load_state_dict(self, state_dict)
        step = state_dict["optimizer"]["param_groups"][0].get("step")
        if step is not None:
            for state in self.optimizer.state.values():
                if torch.is_tensor(state.get("step")):
                    state["step"] = torch.tensor(float(step))
        return result

    optimizer.load_state_dict = load_with_own_steps

    sharded_state_dict = optimizer.sharded_state_dict

    @functools.wraps(sharded_state_dict)
    def sharded_with_state(self, model_sharded_state_dict, is_loading=False, *args, **kwargs):
        if is_loading:
            for group in self.optimizer.param_groups:
                for param in group["params"]:
                    state = self.optimizer.state[param]
                    if not state:
                        state["step"] = torch.tensor(0.0)
                        state["exp_avg"] = torch.zeros_like(param.data)
                        state["exp_avg_sq"] = torch.zeros_like(param.data)
        return sharded_state_dict(self, model_sharded_state_dict, is_loading, *args, **kwargs)

    optimizer.sharded_state_dict = sharded_with_state


def _exchange_on_cpu(module: ModuleType) -> None:
    """Data-parallel ranks each read a part of a checkpoint and exchange them.

    Megatron moves the parts to the GPU and does not wait for its broadcasts: a CUDA stream keeps their order, gloo's
    threads do not.
    """
    view, distributed = _View(_TORCH_VIEW), _View(torch.distributed)
    distributed.broadcast = lambda *args, async_op=False, **kwargs: torch.distributed.broadcast(*args, **kwargs)
    view.distributed = distributed
    module.torch = view
    for name in ("exchange_loaded_tensors_broadcast", "exchange_loaded_tensors_gather_rounds"):
        setattr(module, name, _with_cuda_as_identity(getattr(module, name)))


def _with_cuda_as_identity(function: Callable) -> Callable:
    """Run ``function`` while ``Tensor.cuda()`` gives the tensor itself."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        original = torch.Tensor.cuda
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor
        try:
            return function(*args, **kwargs)
        finally:
            torch.Tensor.cuda = original

    return run


def _save_without_processes(module: ModuleType) -> None:
    """A synchronous save writes its files itself, one after another.

    Megatron forks a writer a file, and keeps their results in the queue of one more process. Spawning that one imports
    the main module again, 20 s a save. A forked one has this worker's sockets open, so that neither Ray nor gloo
    notices when the worker dies; and writers whose worker was killed wait for each other for ever.
    """

    def write(transforms: list, use_msc: bool, rank: int, buckets: list, results: queue.Queue) -> None:
        written: dict[int, list] | Exception = {}
        for number, bucket in enumerate(buckets):
            outcome, running = queue.Queue(), queue.Queue()
            running.put(number)
            writer.write_preloaded_data(transforms, number, bucket, outcome, running, use_fsync=True, use_msc=use_msc)
            _, items = outcome.get_nowait()
            if isinstance(items, Exception):
                written = items
                break
            written[number] = items
        results.put(written)

    def _get_write_results_queue() -> queue.Queue:
        if module._results_queue is None:
            module._results_queue = queue.Queue()
        return module._results_queue

    writer = module.FileSystemWriterAsync
    writer.write_preloaded_data_multiproc = staticmethod(write)
    module._get_write_results_queue = _get_write_results_queue


def _tie_embeddings_on_cpu(module: ModuleType) -> None:
    """Where the first and the last pipeline stage share their embeddings, Megatron moves them to CUDA to compare."""
    language_module = module.LanguageModule
    language_module.setup_embeddings_and_output_layer = _with_cuda_as_identity(
        language_module.setup_embeddings_and_output_layer
    )


# ---- verl's Megatron engine ------------------------------------------------------------------------------------------


def _register_engines(transformer_impl: ModuleType) -> None:
    """Register verl's Megatron engines, unchanged, for the device ``cpu``."""
    registry = importlib.import_module("verl.workers.engine.base").EngineRegistry
    for model_type, engine in (
        ("language_model", transformer_impl.MegatronEngineWithLMHead),
        ("value_model", transformer_impl.MegatronEngineWithValueHead),
    ):
        registry.register(model_type=model_type, backend="megatron", device="cpu")(engine)


def _accept_fp32(engine_config: ModuleType) -> None:
    """verl refuses fp32 for Megatron, where bf16 is the faster choice; on a CPU it is the slower one, and inexact."""
    config = engine_config.McoreEngineConfig
    check = config.__post_init__

    @functools.wraps(check)
    def check_all_but_fp32(self):
        dtype = self.dtype
        if dtype in ("float32", "fp32"):
            object.__setattr__(self, "dtype", "bfloat16")
        check(self)
        object.__setattr__(self, "dtype", dtype)

    config.__post_init__ = check_all_but_fp32
