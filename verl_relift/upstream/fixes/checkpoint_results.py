"""Megatron's synchronous checkpoints: what their writers return, and why one could not write."""

import functools
import queue
from types import ModuleType

from ..registry import Where, patch, replace

_NOTED = 10.0  # seconds until a thread that has failed is sure to have noted why
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


@patch(
    where=Where.EVERYWHERE,
    replaces=(
        f"{_MODULE}:FileSystemWriterAsync.write_preloaded_data",
        f"{_MODULE}:FileSystemWriterAsync.write_preloaded_data_multithread",
    ),
    versions=("megatron-core",),
    upstream="when a thread cannot write, Megatron asserts that what it returned is a list, and says "
    "`<class 'OSError'>` for 'No space left on device'; on one rank, while the others wait for it. Here the thread's "
    "error is what the rank reports to the others",
    canary="test_megatron_still_hides_why_a_thread_cannot_write",
)
def report_why_writing_failed(module: ModuleType) -> None:
    writer = module.FileSystemWriterAsync
    write_all, write = writer.write_preloaded_data_multithread, writer.write_preloaded_data
    errors: queue.Queue[Exception] = queue.Queue()  # of the save that is being made; there is one at a time

    @functools.wraps(write)
    def write_and_note(*args, **kwargs):
        outcome = write(*args, **kwargs)
        if isinstance(outcome[1], Exception):
            errors.put(outcome[1])
        return outcome

    @functools.wraps(write_all)
    def write_all_or_say_why(transform_list, use_msc, rank, write_buckets, global_results_queue) -> None:
        while not errors.empty():
            errors.get()
        results: queue.Queue = queue.Queue()
        wait = 0.0
        try:
            write_all(transform_list, use_msc, rank, write_buckets, results)
        except AssertionError as error:
            results.put(error)
            wait = _NOTED  # the thread has handed its outcome over, and notes it next
        try:
            reported = errors.get(timeout=wait)
        except queue.Empty:
            reported = results.get()
        global_results_queue.put(reported)

    replace(writer, "write_preloaded_data", staticmethod(write_and_note))
    replace(writer, "write_preloaded_data_multithread", staticmethod(write_all_or_say_why))
