"""What a checkpoint's writers return stays in the worker."""

import importlib
import inspect
import queue

import pytest
import torch
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA Megatron's own queue is used")
MODULE = "megatron.core.dist_checkpointing.strategies.filesystem_async"


def test_megatron_still_keeps_results_in_a_process():
    """The day this fails, `keep_results_in_worker` can go."""
    module = importlib.import_module(MODULE)
    assert ".Manager().Queue()" in inspect.getsource(ORIGINALS[f"{MODULE}:get_write_results_queue"])
    assert "get_write_results_queue()" in inspect.getsource(module.FileSystemWriterAsync.prepare_write_data)


def test_a_synchronous_save_writes_in_the_worker():
    """A queue of the worker's own would be empty for a writer in another process."""
    module = importlib.import_module(MODULE)
    assert "Process(" not in inspect.getsource(module.FileSystemWriterAsync)
    torch_dist = importlib.import_module("megatron.core.dist_checkpointing.strategies.torch")
    save = torch_dist.TorchDistSaveShardedStrategy.save
    assert 'async_strategy="mcore"' in inspect.getsource(save) and "execute_sync()" in inspect.getsource(save)


def test_writers_in_threads_return_what_they_wrote(monkeypatch):
    module = importlib.import_module(MODULE)
    results = module.get_write_results_queue()
    assert isinstance(results, queue.Queue) and module.get_write_results_queue() is results

    def write(transforms, local_proc_idx, write_bucket, results_queue, count_queue, use_fsync):
        outcome = (local_proc_idx, [write_bucket])
        if results_queue is not None:
            results_queue.put(outcome)
            count_queue.get()
            count_queue.task_done()
        return outcome

    monkeypatch.setattr(module.FileSystemWriterAsync, "write_preloaded_data", staticmethod(write))
    module.FileSystemWriterAsync.write_preloaded_data_multithread([], False, 0, ["a", "b", "c"], results)
    assert results.get_nowait() == {0: ["a"], 1: ["b"], 2: ["c"]}
