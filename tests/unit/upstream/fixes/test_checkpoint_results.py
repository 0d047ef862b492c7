"""What a checkpoint's writers return stays in the worker, and so does the reason that one could not write."""

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


def written(module, monkeypatch, buckets) -> object:
    """What the rank reports after it has written tensors to files; a real write, without torch's bookkeeping."""

    def write_item(*arguments, **_):
        stream, tensor = arguments[-4], arguments[-3]
        stream.write(tensor.numpy().tobytes())
        return tensor.numel()

    monkeypatch.setattr(module, "_write_item", write_item)
    results: queue.Queue = queue.Queue()
    module.FileSystemWriterAsync.write_preloaded_data_multithread([], False, 0, buckets, results)
    assert results.qsize() == 1
    return results.get()


def test_megatron_still_hides_why_a_thread_cannot_write():
    """The day this fails, `report_why_writing_failed` can go."""
    original = ORIGINALS[f"{MODULE}:FileSystemWriterAsync.write_preloaded_data_multithread"]
    assert "assert isinstance(local_results_or_exc, list), type(local_results_or_exc)" in inspect.getsource(original)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_reason_that_a_thread_could_not_write_is_reported(tmp_path, monkeypatch, place):
    module = importlib.import_module(MODULE)
    buckets = [(str(tmp_path / str(i)), str(i), ([], [(None, torch.zeros(1 << 16))])) for i in range(3)]
    assert written(module, monkeypatch, buckets) == {0: [1 << 16], 1: [1 << 16], 2: [1 << 16]}
    buckets[place] = ("/dev/full", "full", buckets[place][2])
    assert isinstance(reported := written(module, monkeypatch, buckets), OSError)
    assert "No space left on device" in str(reported)
    buckets[place] = (str(tmp_path / "no" / "folder"), "none", buckets[place][2])
    assert isinstance(written(module, monkeypatch, buckets), FileNotFoundError)
