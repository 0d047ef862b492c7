"""Megatron's synchronous checkpoints without the process that keeps their results."""

import queue
from types import ModuleType

from ..registry import Where, patch, replace

_MODULE = "megatron.core.dist_checkpointing.strategies.filesystem_async"


@patch(
    where=Where.CPU,
    replaces=(f"{_MODULE}:get_write_results_queue",),
    versions=("megatron-core",),
    upstream="has a process of its own keep what the writers return. Their threads, in a synchronous save, are in the "
    "worker itself; the process imports the main module again before the first save, and it never ends when the "
    "worker is killed. Here the results stay in the worker",
    canary="test_megatron_still_keeps_results_in_a_process",
)
def keep_results_in_worker(module: ModuleType) -> None:
    def get_write_results_queue(mp_mode: str = "spawn") -> queue.Queue:
        if module._results_queue is None:
            module._results_queue = queue.Queue()
        return module._results_queue

    replace(module, "get_write_results_queue", get_write_results_queue)
