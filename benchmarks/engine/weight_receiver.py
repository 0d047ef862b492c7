"""Receives weights in vLLM with verl's worker extension, on request (benchmarks/sides.py).

`python -m benchmarks.engine.weight_receiver MODEL JOB`
"""

import os
import sys
import time
from multiprocessing import shared_memory
from typing import Any

import torch

from benchmarks.sides import serve


def start() -> dict[str, Any]:
    """Load the model like a rollout server of training and return the worker's functions."""
    model, job = sys.argv[1:]
    # The engine runs in this process, so that the transfer is measured without a call between processes.
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VERL_RAY_JOB_ID=job, VLLM_CPU_KVCACHE_SPACE="1")
    import verl  # noqa: F401  loads the platform plugin
    from vllm import LLM

    llm = LLM(
        model=model,
        dtype="float32",
        enforce_eager=True,
        max_model_len=640,
        num_gpu_blocks_override=64,
        skip_tokenizer_init=True,
        worker_extension_cls="verl.workers.rollout.vllm_rollout.utils.vLLMColocateWorkerExtension",
    )

    def receive() -> dict[str, float]:
        """Receive a weight update and return when it began and ended, in seconds of the monotonic clock."""
        began = time.monotonic()
        llm.collective_rpc("update_weights_from_ipc", kwargs={"use_shm": True, "base_sync_done": True})
        return {"began": began, "ended": time.monotonic()}

    def copy_out(name: str, size: int) -> dict[str, float]:
        """Return the seconds to copy a shared segment into memory of this process whose pages are mapped."""
        segment = shared_memory.SharedMemory(name=name)
        source = torch.frombuffer(segment.buf, dtype=torch.uint8)[:size]
        target = torch.zeros(size, dtype=torch.uint8)
        target.copy_(source)  # maps the pages
        began = time.monotonic()
        target.copy_(source)
        taken = time.monotonic() - began
        del source
        segment.close()
        return {"seconds": taken}

    return {"receive": receive, "copy_out": copy_out}


if __name__ == "__main__":
    serve(start)
