"""Megatron's synchronous checkpoints without the processes that outlive a killed worker."""

import queue
from types import ModuleType

from ..registry import Where, patch, replace

_MODULE = "megatron.core.dist_checkpointing.strategies.filesystem_async"


@patch(
    where=Where.CPU,
    replaces=(
        f"{_MODULE}:FileSystemWriterAsync.write_preloaded_data_multiproc",
        f"{_MODULE}:_get_write_results_queue",
    ),
    versions=("megatron-core",),
    upstream="forks a writer a file. It has the worker's sockets open, so that neither Ray nor gloo notices when the "
    "worker dies, and then it never ends. One more process, which keeps the results, imports the main module again, 20 "
    "seconds a save. Here the worker writes its files itself, one after another",
    canary="test_megatron_still_forks_a_writer_a_file",
    issue="NVIDIA/nvidia-resiliency-ext#197",
)
def save_without_processes(module: ModuleType) -> None:
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
    replace(writer, "write_preloaded_data_multiproc", staticmethod(write))
    replace(module, "_get_write_results_queue", _get_write_results_queue)
