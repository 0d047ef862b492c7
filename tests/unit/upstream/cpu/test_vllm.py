"""vLLM's CPU engine under repeated weight updates."""

from importlib.util import find_spec
from pathlib import Path


def test_vllm_still_throws_weights_away_after_packing():
    """The day this fails, `keep_weights_after_packing` can go."""
    source = (Path(find_spec("vllm").origin).parent / "model_executor/layers/linear.py").read_text()
    assert "dispatch_cpu_unquantized_gemm(layer, remove_weight=True)" in source
