"""vLLM, offline: requests in, completions out as they finish, on one replica or on one per device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Requests beyond those that run at once: enough that the scheduler never waits, few enough to be held in memory.
_WAITING = 256
_CPU_BLOCK_TOKENS = 128
_CPU_CACHE_BYTES = 4 * 2**30
_CPU_BATCHED_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine is set up.

    model: a Hugging Face folder. dtype: vLLM's name for it; `auto` is the model's own on CUDA and float32 on a CPU.
    max_model_len: tokens of the longest sequence. max_num_seqs: sequences at once in one replica.
    tensor_parallel: devices of one replica. verbose: show vLLM's logs.
    """

    model: Path
    dtype: str
    max_model_len: int
    max_num_seqs: int
    tensor_parallel: int = 1
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Sampler:
    """What every request shares: temperature, nucleus and the response's most tokens."""

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Request:
    """One response to be drawn: of which question, the how many-eth, from which token ids, with which seed."""

    key: str
    sample: int
    prompt_ids: list[int]
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A response: its text without special tokens, its length in tokens (the end token counts), whether it was cut."""

    key: str
    sample: int
    text: str
    tokens: int
    truncated: bool


def prepare_environment(tensor_parallel: int, verbose: bool) -> None:
    """Set what torch and vLLM read when they are imported, so call it before. Names that are set stay as they are."""
    defaults = {
        # One core stays free for grading: threads that wait for each other at every small matrix product are slowed
        # down many times over by whatever else needs their core.
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if tensor_parallel == 1:
        defaults["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process: one import of vLLM less
    if not verbose:
        defaults |= {"VLLM_LOGGING_LEVEL": "ERROR", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def start_engine(settings: EngineSettings) -> Any:
    """A `vllm.LLM` in this process."""
    prepare_environment(settings.tensor_parallel, settings.verbose)
    from vllm import LLM
    from vllm.platforms import current_platform

    return LLM(**_arguments(settings, current_platform.is_cpu()))


def generate(
    settings: EngineSettings, sampler: Sampler, requests: Iterable[Request], llm: Any = None
) -> Iterator[Completion]:
    """Draw every request on one replica in this process; yields completions in the order in which they finish.

    llm: an engine from `start_engine` with the same settings; None starts one.
    """
    llm = llm or start_engine(settings)
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    engine = llm.llm_engine
    waiting = iter(requests)
    running: dict[str, Request] = {}
    exhausted = False
    number = 0
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
                yield Completion(request.key, request.sample, response.text, len(response.token_ids), cut)


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
        # vLLM would reserve a cache of gigabytes and warm up for it; this job's size is known.
        arguments |= {
            "enforce_eager": True,
            "block_size": _CPU_BLOCK_TOKENS,
            "num_gpu_blocks_override": _cpu_blocks(settings),
            "max_num_batched_tokens": _CPU_BATCHED_TOKENS,
        }
    return arguments


def _cpu_blocks(settings: EngineSettings) -> int:
    """Cache blocks for all sequences at once, bounded by `_CPU_CACHE_BYTES`, and by one longest sequence from below."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(settings.model).get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    block_bytes = 2 * config.num_hidden_layers * heads * head_dim * _CPU_BLOCK_TOKENS * 4
    each = -(-settings.max_model_len // _CPU_BLOCK_TOKENS)
    return max(each, min(settings.max_num_seqs * each, _CPU_CACHE_BYTES // block_bytes)) + 1
