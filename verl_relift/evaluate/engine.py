"""Runs vLLM offline in this process: takes requests and yields completions as they finish."""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..run import threads, toolkit
from ..run.environment import ON_LOOPBACK
from .progress import Snapshot

# Requests queued in vLLM beyond those that run: enough to keep its scheduler busy, few enough to hold in memory.
_WAITING = 256
_CPU_BLOCK_TOKENS = 128
_CPU_CACHE_BYTES = 4 * 2**30
_CPU_BATCHED_TOKENS = 2048
_SNAPSHOT_EVERY_S = 1.0

# What torch and vLLM read when they are imported, so that their warnings don't stand among this program's lines.
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of one vLLM engine.

    Attributes:
        model: a Hugging Face folder.
        dtype: vLLM's name of the weights' type; `auto` means the model's own on CUDA and float32 on a CPU.
        max_model_len: length of the longest sequence, in tokens.
        max_num_seqs: concurrent sequences per replica.
        tensor_parallel: devices per replica.
        verbose: whether to show vLLM's logs.
        width: `hidden_size` of the model.
        replicas: engines beside each other on a CPU; None means one.
    """

    model: Path
    dtype: str
    max_model_len: int
    max_num_seqs: int
    tensor_parallel: int = 1
    verbose: bool = False
    width: int = 0
    replicas: int | None = None


@dataclass(frozen=True, slots=True)
class Sampler:
    """Sampling parameters that all requests share; `max_tokens` limits the response."""

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Request:
    """One response to sample.

    Attributes:
        key: key of the question.
        sample: index of this response among the question's samples.
        prompt_ids: token ids of the prompt.
        seed: seed of the sampler, 63 bits.
    """

    key: str
    sample: int
    prompt_ids: list[int]
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response.

    Attributes:
        key: key of the question.
        sample: index of this response among the question's samples.
        text: the response without special tokens.
        tokens: length of the response, including its end token.
        truncated: whether the response was cut at the length limit.
    """

    key: str
    sample: int
    text: str
    tokens: int
    truncated: bool


def prepare_environment(tensor_parallel: int, verbose: bool, width: int = 0, replicas: int | None = None) -> None:
    """Set environment variables that torch and vLLM read at import; call this before importing them.

    Variables that are already set keep their value.

    Args:
        tensor_parallel: devices per replica.
        verbose: whether to show vLLM's logs.
        width: `hidden_size` of the model.
        replicas: engines on a CPU; None means one.
    """
    cores, processes = threads.usable_cores(), tensor_parallel * (replicas or 1)
    if width < threads.MIN_WIDTH:
        # One core stays free for grading. Threads that synchronize at every small matrix product become many times
        # slower as soon as something else needs one of their cores.
        cores -= 1
    defaults = {
        "OMP_NUM_THREADS": str(max(1, cores // processes)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **ON_LOOPBACK,
    }
    if tensor_parallel == 1:
        defaults["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # runs the engine in this process and saves one import of vLLM
    toolkit.use_installed()  # FlashInfer compiles its sampler
    if not verbose:
        defaults |= QUIET
        # It warns, when vLLM imports it on a machine without a GPU, that it has found a CUDA toolkit and no GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def start_engine(settings: EngineSettings) -> Any:
    """Start and return a `vllm.LLM` in this process."""
    prepare_environment(settings.tensor_parallel, settings.verbose, settings.width, settings.replicas)
    from vllm import LLM
    from vllm.platforms import current_platform

    return LLM(**_arguments(settings, current_platform.is_cpu()))


def generate(
    settings: EngineSettings, sampler: Sampler, requests: Iterable[Request], llm: Any = None, replica: int = 0
) -> Iterator[Completion | Snapshot]:
    """Sample every request on one replica in this process.

    Args:
        settings: settings of the engine.
        sampler: sampling parameters of all requests.
        requests: the responses to sample; read lazily.
        llm: an engine from `start_engine` with the same settings; None starts one.
        replica: number of this replica.

    Yields:
        Completions, in the order in which they finish, and about once a second where the engine is.
    """
    llm = llm or start_engine(settings)
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    engine = llm.llm_engine
    waiting = iter(requests)
    running: dict[str, Request] = {}
    exhausted = False
    number = 0
    count = _Count(replica, engine)
    while True:
        while not exhausted and len(running) < settings.max_num_seqs + _WAITING:
            request = next(waiting, None)
            if request is None:
                exhausted = True
                break
            params = SamplingParams(
                temperature=sampler.temperature,
                top_p=sampler.top_p,
                max_tokens=sampler.max_tokens,
                seed=request.seed if sampler.temperature > 0 else None,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            engine.add_request(str(number), TokensPrompt(prompt_token_ids=request.prompt_ids), params)
            running[str(number)] = request
            number += 1
        if not running:
            return
        for output in engine.step():
            if output.finished:
                request, response = running.pop(output.request_id), output.outputs[0]
                cut = response.finish_reason == "length"
                count.finish(len(response.token_ids), len(request.prompt_ids))
                yield Completion(request.key, request.sample, response.text, len(response.token_ids), cut)
        yield from count.step(last=not running)


class _Count:
    """Counts what an engine does. Of responses that are not finished vLLM knows the tokens."""

    def __init__(self, replica: int, engine: Any):
        self._replica, self._states = replica, engine.output_processor.request_states
        self._started = self._last = time.monotonic()
        self._passes = self._tokens = self._prompt_tokens = 0

    def finish(self, tokens: int, prompt_tokens: int) -> None:
        self._tokens += tokens
        self._prompt_tokens += prompt_tokens

    def step(self, last: bool) -> Iterator[Snapshot]:
        """Count a forward pass; yield where the engine is, if the last time is a while ago or this is the last."""
        self._passes += 1
        now = time.monotonic()
        if not last and now - self._last < _SNAPSHOT_EVERY_S:
            return
        self._last = now
        begun = [(state.detokenizer.num_output_tokens(), state.prompt_len) for state in self._states.values()]
        begun = [(tokens, prompt) for tokens, prompt in begun if tokens]
        tokens = self._tokens + sum(tokens for tokens, _ in begun)
        prompt_tokens = self._prompt_tokens + sum(prompt for _, prompt in begun)
        lengths = tuple(tokens for tokens, _ in begun)
        yield Snapshot(self._replica, now - self._started, self._passes, tokens, prompt_tokens, lengths)


def _arguments(settings: EngineSettings, on_cpu: bool) -> dict[str, Any]:
    arguments = {
        "model": str(settings.model),
        "dtype": "float32" if on_cpu and settings.dtype == "auto" else settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel,
        "disable_log_stats": True,
        "use_tqdm_on_load": settings.verbose,
        "seed": 0,
    }
    if on_cpu:
        # By default vLLM reserves gigabytes of cache and warms up for them. The size of this job is known.
        arguments |= {
            "enforce_eager": True,
            "block_size": _CPU_BLOCK_TOKENS,
            "num_gpu_blocks_override": _cpu_blocks(settings),
            # Whole prompts only: the random numbers of a CPU cannot be rewound, which a seeded request whose prompt
            # is computed in parts asks for.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(_CPU_BATCHED_TOKENS, settings.max_model_len),
        }
    return arguments


def _cpu_blocks(settings: EngineSettings) -> int:
    """Return the number of cache blocks: those of all concurrent sequences, limited by `_CPU_CACHE_BYTES`."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(settings.model).get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    block_bytes = 2 * config.num_hidden_layers * heads * head_dim * _CPU_BLOCK_TOKENS * 4
    each = -(-settings.max_model_len // _CPU_BLOCK_TOKENS)
    return max(each, min(settings.max_num_seqs * each, _CPU_CACHE_BYTES // block_bytes)) + 1
