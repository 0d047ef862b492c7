"""Entry point `vllm.general_plugins`: vLLM in a training or an evaluation, and its CPU engine as a rollout engine."""

import functools
from types import ModuleType

from ...run import leftovers
from ..fixes import torch_store
from ..registry import Where, patch, replace
from ..registry import install as install_patches


def install() -> None:
    """Patch this process, if it runs vLLM's CPU build, or in an evaluation, where nobody imports verl.

    Raises:
        UnsupportedVersion: the CPU build is of a version these patches were not written for.
    """
    from vllm.platforms import current_platform

    if leftovers.folder_of_this_run() is not None:
        torch_store.meet_in_private()
    if current_platform.is_cpu():
        from ..speed import vllm  # noqa: F401  declares its patches

        install_patches(Where.VLLM_CPU)


@patch(
    where=Where.VLLM_CPU,
    replaces=("vllm.model_executor.layers.utils:dispatch_cpu_unquantized_gemm",),
    versions=("vllm-cpu",),
    upstream="after loading, linear layers pack their weight for oneDNN and throw the original away, so the next "
    "weight update has nothing to load into; here they keep it, at the cost of holding it twice",
    canary="test_vllm_still_throws_weights_away_after_packing",
)
def keep_weights_after_packing(utils: ModuleType) -> None:
    dispatch = utils.dispatch_cpu_unquantized_gemm

    @functools.wraps(dispatch)
    def dispatch_keeping_weight(layer, remove_weight):
        return dispatch(layer, remove_weight=False)

    replace(utils, "dispatch_cpu_unquantized_gemm", dispatch_keeping_weight)
