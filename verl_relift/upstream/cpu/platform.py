"""verl's platform for machines without an accelerator, registered with verl's own `PlatformRegistry`.

Ray schedules *logical* GPUs (`ray.init(num_gpus=N)`): verl's resource checks count only GPU and NPU resources, so
the resource keeps its name and stands for a training rank.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from ...run.environment import SPEED_PATCHES
from ...run.threads import THREADS
from ..registry import Where, add, patch


def _resident_bytes(*_args, **_kwargs) -> int:
    return psutil.Process().memory_info().rss


def _nothing(*_args, **_kwargs) -> None:
    return None


def _memory_info(*_args, **_kwargs) -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.available, memory.total


# What verl and vLLM's workers call on a device module and `torch.cpu` lacks. verl compares its device module with
# `torch.cpu` by identity, so the gaps are filled in the module itself; nothing that exists is replaced.
_DEVICE_MODULE_GAPS = {
    "empty_cache": _nothing,
    "ipc_collect": _nothing,
    "memory_allocated": _resident_bytes,
    "memory_reserved": _resident_bytes,
    "max_memory_allocated": _resident_bytes,
    "max_memory_reserved": _resident_bytes,
    "mem_get_info": _memory_info,
    "reset_peak_memory_stats": _nothing,
    "reset_accumulated_memory_stats": _nothing,
    "set_per_process_memory_fraction": _nothing,
    "manual_seed": torch.manual_seed,
    "manual_seed_all": torch.manual_seed,
    "get_rng_state": lambda *_: torch.get_rng_state(),
    "set_rng_state": lambda state, *_: torch.set_rng_state(state),
    "get_device_name": lambda *_: "CPU",
}


@patch(
    where=Where.CPU,
    after=("torch.cpu",),
    adds=tuple(f"torch.cpu:{name}" for name in _DEVICE_MODULE_GAPS),
    upstream="verl and vLLM's workers call functions of the device's module that `torch.cpu` lacks",
    canary="test_torch_still_lacks_the_functions_of_a_device_module",
)
def fill_device_module_gaps(device_module: ModuleType) -> None:
    for name, function in _DEVICE_MODULE_GAPS.items():
        add(device_module, name, function)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """CPU as a verl device: gloo, no IPC handles, one device per process."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = torch.cpu

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # Chosen by the plugin through VERL_PLATFORM; never in competition with an accelerator.
        return False

    def current_device(self) -> torch.device:
        # verl passes the result to `Tensor.to`, where an int means CUDA.
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        # Not CUDA_VISIBLE_DEVICES: an empty one makes torch and vLLM look for a driver.
        return "VERL_CPU_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        return {
            # vLLM's engine is forked from its server, which has one thread: a pool of several does not survive a fork.
            # The engine chooses its own number then (upstream/speed/vllm.py); where it is spawned it gets it here.
            "OMP_NUM_THREADS": os.environ.get(THREADS, "1") if os.environ.get(SPEED_PATCHES) == "0" else "1",
            "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
            "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
        }

    def cudart(self) -> None:
        return None
