"""What vLLM on a CPU does without the patches, and with them, in one process of its own: one line of JSON.

Run by the fixture `vllm_process`; the tests of several modules read its findings.
"""

import json
import sys
import threading
import time
from unittest import mock

from verl_relift.upstream.cpu import vllm as cpu_vllm
from verl_relift.upstream.registry import ORIGINALS

STEPS = 20  # of sampling
SHM_BROADCAST = "vllm.distributed.device_communicators.shm_broadcast"


def backends(model: str) -> dict:
    from vllm import EngineArgs
    from vllm.platforms.cpu import CpuPlatform

    def backend(ranks: int) -> str:
        arguments = EngineArgs(model=model, tensor_parallel_size=ranks, distributed_executor_backend="mp")
        return arguments.create_engine_config().parallel_config.distributed_executor_backend

    patched = [backend(ranks) for ranks in (1, 2)]
    upstream = ORIGINALS["vllm.platforms.cpu:CpuPlatform.check_and_update_config"]
    with mock.patch.object(CpuPlatform, "check_and_update_config", upstream):
        return {"backends": {"patched": patched, "upstream": [backend(1)]}}


def waiting() -> dict:
    """Seconds of a core that a reader takes while it waits 0.8 seconds for the next message."""
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

    def busy() -> float:
        writer = MessageQueue(1, 1)
        reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
        ready = threading.Thread(target=reader.wait_until_ready)
        ready.start()
        writer.wait_until_ready()
        ready.join()
        got = []
        threading.Thread(target=lambda: got.extend(reader.dequeue() for _ in range(2)), daemon=True).start()
        writer.enqueue("first")
        before = time.process_time()
        time.sleep(0.8)
        used = time.process_time() - before
        writer.enqueue("second")
        deadline = time.monotonic() + 10
        while len(got) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert got == ["first", "second"]
        return used

    patched = busy()
    with mock.patch.object(shm_broadcast, "sched_yield", ORIGINALS[f"{SHM_BROADCAST}:sched_yield"]):
        return {"busy": {"patched": patched, "upstream": busy()}}


def processes() -> dict:
    import vllm.v1.engine.utils as engine
    from vllm.utils import system_utils

    upstream = ORIGINALS["vllm.v1.engine.utils:get_mp_context"]
    context = mock.Mock(gcs_address="127.0.0.1:1")
    with (
        mock.patch.object(system_utils, "is_in_ray_actor", lambda: True),
        mock.patch("ray.get_runtime_context", lambda: context),
        mock.patch.dict("os.environ"),
    ):
        start = upstream().get_start_method()
    return {"start": {"patched": engine.get_mp_context().get_start_method(), "upstream": start}}


def sampling() -> dict:
    """Tokens and noise drawn with the patch and without it, and how often upstream draws noise for 4 seeded rows."""
    import torch
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    def sampled(forward, seeds: int, mode: str, k: int | None) -> tuple:
        sampler = TopKTopPSampler(mode)
        logits = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0)) * 4
        generators = {row: torch.Generator().manual_seed(row) for row in range(seeds)}
        top_k = None if k is None else torch.full((4,), k)
        drawn = []
        for _ in range(STEPS):
            tokens, returned = forward(sampler, logits.clone(), generators, top_k, None)
            drawn += [tokens[:seeds].tolist(), None if returned is None else returned.nan_to_num().sum().item()]
        return drawn, [generator.get_state().tolist() for generator in generators.values()]

    upstream = ORIGINALS["vllm.v1.sample.ops.topk_topp_sampler:TopKTopPSampler.forward_cpu"]
    cases = [(4, "raw_logprobs", None), (4, "processed_logprobs", 50), (4, "processed_logits", None)]
    same = [sampled(TopKTopPSampler.forward_cpu, *case) == sampled(upstream, *case) for case in cases]
    draw, draws = torch.Tensor.exponential_, []

    def counted(tensor, *arguments, **keywords):
        draws.append(tensor.shape)
        return draw(tensor, *arguments, **keywords)

    with mock.patch.object(torch.Tensor, "exponential_", counted):
        sampled(TopKTopPSampler.forward_cpu, *cases[0])
        patched = len(draws)
        sampled(upstream, *cases[0])
    return {"sampling": {"same": same, "draws": {"patched": patched, "upstream": (len(draws) - patched) / STEPS}}}


def main(model: str) -> None:
    from verl_relift.quickstart.random_model import main as make_model

    sys.argv[1:] = ["--output", model]
    make_model()
    cpu_vllm.install()
    import vllm.model_executor.layers.utils  # noqa: F401

    findings = {**processes(), **waiting(), **backends(model), **sampling(), "replaced": sorted(ORIGINALS)}
    print("FINDINGS", json.dumps(findings))


if __name__ == "__main__":
    main(sys.argv[1])
