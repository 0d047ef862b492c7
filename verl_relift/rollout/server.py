"""verl's vLLM server with one more method: answer many questions, n times each, and stream the finished groups."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from verl.workers.rollout.replica import RolloutReplicaRegistry
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm import SamplingParams
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind

from ..run import garbage
from ..upstream.fixes import weight_socket


@dataclass(frozen=True)
class SampleRequest:
    """What to answer, and how often."""

    token_ids: list[int]  # the prompt, with the forced head of the answer
    forced: int  # tokens of that head
    samples: int
    seed: int | None  # of the first response, the k-th takes seed + k; None: the engine's own generator


@dataclass(frozen=True)
class SampledResponse:
    """One sampled response."""

    token_ids: np.ndarray  # [tokens] int64, with the end-of-sequence token if one was sampled
    log_probs: np.ndarray | None  # [tokens] float32, log-probability of each token under the sampling distribution
    truncated: bool  # ended by the length limit


@dataclass(frozen=True)
class SampledGroup:
    """All responses to one prompt, or why there are none."""

    index: int  # position of the prompt in the call
    responses: list[SampledResponse]
    global_steps: int | None  # version of the weights that sampled them
    error: str | None = None


# Between noticing that the engine is dead and ending, so that calls in flight can say so, seconds.
LAST_WORDS = 5.0


class GroupServer(vLLMHttpServer):
    """`vLLMHttpServer` plus `generate_groups`. It ends when its engine does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # vLLM's processes inherit these: they name the socket of the weights, and those among themselves.
        os.environ["VERL_RAY_JOB_ID"] = weight_socket.private_job_id()
        os.environ["VLLM_RPC_BASE_PATH"] = str(weight_socket.folder())

    async def launch_server(self, *args, **kwargs):
        """As verl's; then watch the engine."""
        garbage.freeze()  # before the engine's process is forked from this one
        result = await super().launch_server(*args, **kwargs)
        if getattr(self, "engine", None) is not None:
            self._watch = asyncio.create_task(self._end_with_engine())
        return result

    async def run_server(self, args):
        """As verl's, but HTTP serves at most what Prometheus asks for (upstream/fixes/http_server.py)."""
        args.serves_metrics = self.config.prometheus.enable
        await super().run_server(args)

    async def lifetime(self) -> None:
        """Never returns: the call fails when this process ends."""
        await asyncio.Event().wait()

    async def _end_with_engine(self) -> None:
        """Calls that the engine was to answer would wait forever, and with them the trainer."""
        while not self.engine.errored:
            await asyncio.sleep(1.0)
        await asyncio.sleep(LAST_WORDS)
        print("verl_relift: vLLM's engine process died; ending this server", file=sys.stderr, flush=True)
        os._exit(1)

    @ray.method(num_returns="streaming")
    async def generate_groups(
        self, requests: list[SampleRequest], sampling: dict[str, Any], request_id: str
    ) -> AsyncIterator[SampledGroup]:
        """Answer `requests` and yield each group when its last response is finished.

        Args:
            sampling: temperature, top_p, top_k, max_tokens (of an answer, its forced head included), and `logprobs`
                (bool).
            request_id: unique over the calls to this server.
        """
        seeded = any(request.seed is not None for request in requests)
        if seeded:
            # The engine starts on the whole batch at once: which requests share a forward pass, and with it the last
            # bits of their log-probabilities, would otherwise depend on how fast they arrive.
            await self.engine.pause_generation(mode="keep", clear_cache=False)
        try:
            outputs = [await self._submit(request, sampling, f"{request_id}-{i}") for i, request in enumerate(requests)]
        finally:
            if seeded:
                await self.engine.resume_generation()
        finished: asyncio.Queue[SampledGroup] = asyncio.Queue()
        tasks = [asyncio.create_task(self._one_group(i, output, finished)) for i, output in enumerate(outputs)]
        try:
            for _ in tasks:
                yield await finished.get()
        finally:
            for task in tasks:
                task.cancel()

    async def shutdown(self) -> None:
        """End the engine's processes, which unlink their shared memory; killing this actor would leave it behind."""
        if getattr(self, "engine", None) is not None:
            self.engine.shutdown()

    async def _submit(self, request: SampleRequest, sampling: dict[str, Any], request_id: str):
        """Hand one request to the engine; returns where its output will appear, or the error that refused it."""
        wants_log_probs = sampling["logprobs"]
        params = SamplingParams(
            n=request.samples,
            temperature=sampling["temperature"],
            top_p=sampling["top_p"],
            top_k=sampling["top_k"],
            max_tokens=min(sampling["max_tokens"] - request.forced, self.config.max_model_len - len(request.token_ids)),
            logprobs=0 if wants_log_probs else None,
            flat_logprobs=wants_log_probs,
            ignore_eos=self.config.get("ignore_eos", False),
            seed=request.seed,
            # Only the complete group is of use: no partial outputs through three processes for every token.
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,
        )
        try:
            return await self.engine.add_request(request_id, TokensPrompt(prompt_token_ids=request.token_ids), params)
        except Exception as error:
            return error

    async def _one_group(self, index: int, output, finished: asyncio.Queue) -> None:
        try:
            if isinstance(output, Exception):
                raise output
            final = output.get_nowait() or await output.get()
            group = SampledGroup(index, [_rollout(o) for o in final.outputs], self.global_steps)
        except asyncio.CancelledError:
            await self.engine.abort(output.request_id, internal=True)
            raise
        except Exception as error:
            # The caller decides what a failed group means; the other groups continue.
            group = SampledGroup(index, [], self.global_steps, error=f"{type(error).__name__}: {error}")
        await finished.put(group)


def _rollout(output) -> SampledResponse:
    token_ids = np.asarray(output.token_ids, dtype=np.int64)
    log_probs = None
    if output.logprobs is not None:
        # Flat layout: the sampled token is the first entry of each position.
        log_probs = np.asarray(output.logprobs.logprobs, dtype=np.float32)[output.logprobs.start_indices]
    return SampledResponse(token_ids, log_probs, truncated=output.finish_reason == "length")


class GroupReplica(vLLMReplica):
    """`vLLMReplica` that starts `GroupServer`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(GroupServer)


def register() -> None:
    """Make `rollout.name=vllm` start `GroupServer` in this process's LLM server manager."""
    RolloutReplicaRegistry.register("vllm", lambda: GroupReplica)
