"""vLLM's CPU engine under repeated weight updates."""

from importlib.util import find_spec
from pathlib import Path


def test_vllm_still_throws_weights_away_after_packing():
    """The day this fails, `keep_weights_after_packing` can go."""
    source = (Path(find_spec("vllm").origin).parent / "model_executor/layers/linear.py").read_text()
    assert "dispatch_cpu_unquantized_gemm(layer, remove_weight=True)" in source


def test_only_the_weights_are_kept_where_speed_patches_are_off(python):
    ran = python(
        """
        from verl_relift.upstream.cpu import vllm
        vllm.install()
        import vllm.distributed.device_communicators.shm_broadcast
        import vllm.model_executor.layers.utils, vllm.v1.engine.utils, vllm.v1.executor.multiproc_executor
        from verl_relift.upstream.registry import ORIGINALS
        print(sorted(ORIGINALS))
        """,
        VERL_RELIFT_SPEED_PATCHES="0",
    )
    assert ran.stdout.splitlines()[-1:] == ["['vllm.model_executor.layers.utils:dispatch_cpu_unquantized_gemm']"], ran
