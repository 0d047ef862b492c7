"""Runs one engine per device (data parallelism), each in its own process, fed from one queue."""

import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from .engine import Completion, EngineSettings, Request, Sampler, generate
from .errors import EvaluationError
from .progress import Snapshot

_POLL_S = 1.0
_STOP_S = 10.0


def generate_on_devices(
    settings: EngineSettings, sampler: Sampler, requests: Sequence[Request], replicas: int | None
) -> Iterator[Completion | Snapshot]:
    """Sample all requests on several engines.

    A single replica runs in this process. Several replicas each take the next request when they have room, so that a
    replica with long responses does not hold up the others.

    Args:
        settings: settings of each engine.
        sampler: sampling parameters of all requests.
        requests: the responses to sample.
        replicas: number of engines; None means as many as the visible CUDA devices allow, or 1 without CUDA.

    Returns:
        Completions, in the order in which they finish, and about once a second where an engine is.

    Raises:
        EvaluationError: there are fewer devices than requested, or a replica fails.
    """
    devices = _visible_devices()
    most = len(devices) // settings.tensor_parallel
    if devices and not most:
        raise EvaluationError(
            f"--tensor-parallel {settings.tensor_parallel} exceeds the {len(devices)} visible devices"
        )
    if devices and replicas and replicas > most:
        raise EvaluationError(
            f"--replicas {replicas} x --tensor-parallel {settings.tensor_parallel} exceeds the {len(devices)} visible "
            f"devices; use --replicas {most} or fewer"
        )
    count = min(replicas or max(1, most), len(requests))
    if count == 1:
        return generate(settings, sampler, requests)
    size = settings.tensor_parallel
    shares = [devices[i * size : (i + 1) * size] if devices else [] for i in range(count)]
    return _generate_in_processes(settings, sampler, requests, shares)


def _visible_devices() -> list[str]:
    """Return the CUDA devices by the names that CUDA_VISIBLE_DEVICES takes, without initializing CUDA here."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.version.cuda:
        return []
    return [name for name in named.split(",") if name] if named else [str(i) for i in range(torch.cuda.device_count())]


def _generate_in_processes(
    settings: EngineSettings, sampler: Sampler, requests: Sequence[Request], shares: list[list[str]]
) -> Iterator[Completion | Snapshot]:
    context = multiprocessing.get_context("spawn")  # a fork would lose the tokenizer's threads
    waiting: Any = context.Queue()
    results: Any = context.Queue()
    for request in requests:
        waiting.put(request)
    for _ in shares:
        waiting.put(None)
    processes = [
        context.Process(target=_replica, args=(settings, sampler, waiting, results, devices, number), daemon=False)
        for number, devices in enumerate(shares)
    ]
    for process in processes:
        process.start()
    try:
        left = len(requests)
        while left:
            try:
                result = results.get(timeout=_POLL_S)
            except queue.Empty:
                dead = next((p for p in processes if p.exitcode), None)
                if dead is not None:
                    raise EvaluationError(
                        f"a replica exited with status {dead.exitcode}; --verbose shows its log"
                    ) from None
                continue
            if isinstance(result, str):
                raise EvaluationError(f"a replica failed:\n{result}")
            left -= isinstance(result, Completion)
            yield result
    finally:
        waiting.cancel_join_thread()
        for process in processes:
            process.join(timeout=_STOP_S if not left else 0)
            if process.is_alive():
                process.terminate()
                process.join()


def _replica(
    settings: EngineSettings, sampler: Sampler, waiting: Any, results: Any, devices: list[str], number: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends its replicas
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    try:
        for result in generate(settings, sampler, iter(waiting.get, None), replica=number):
            results.put(result)
    except Exception:  # the parent ends the evaluation with this traceback
        results.put(traceback.format_exc(limit=-5))
