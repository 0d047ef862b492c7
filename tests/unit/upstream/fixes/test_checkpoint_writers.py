"""A worker writes its checkpoint itself."""

import importlib
import inspect
import queue

import pytest
import torch
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA Megatron's own writers are used")
MODULE = "megatron.core.dist_checkpointing.strategies.filesystem_async"


def test_megatron_still_forks_a_writer_a_file():
    """The day this fails, `save_without_processes` can go."""
    importlib.import_module(MODULE)
    write = ORIGINALS[f"{MODULE}:FileSystemWriterAsync.write_preloaded_data_multiproc"].__func__
    assert 'get_context("fork")' in inspect.getsource(write) and "ctx.Process(" in inspect.getsource(write)
    assert 'get_context("spawn")' in inspect.getsource(ORIGINALS[f"{MODULE}:_get_write_results_queue"])


def test_files_are_written_one_after_another_and_the_first_error_is_the_result(monkeypatch):
    module = importlib.import_module(MODULE)
    assert isinstance(module._get_write_results_queue(), queue.Queue)
    written = []

    def write(transforms, number, bucket, outcome, running, **settings):
        written.append(bucket)
        outcome.put((number, OSError("disk full") if bucket == "bad" else [bucket]))
        running.get()

    monkeypatch.setattr(module.FileSystemWriterAsync, "write_preloaded_data", staticmethod(write))
    results = queue.Queue()
    module.FileSystemWriterAsync.write_preloaded_data_multiproc([], False, 0, ["a", "b"], results)
    assert results.get() == {0: ["a"], 1: ["b"]}
    module.FileSystemWriterAsync.write_preloaded_data_multiproc([], False, 0, ["bad", "c"], results)
    assert isinstance(results.get(), OSError)
    assert written == ["a", "b", "bad"]
