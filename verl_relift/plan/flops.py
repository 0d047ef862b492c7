"""Tokens, floating-point operations and seconds of a training step."""

from dataclasses import dataclass

from .hardware import Accelerator
from .job import Job
from .memory import kv_bytes_per_token, kv_cache, vllm_weights
from .shapes import ModelShape

# Assumed fractions of the data sheet's figures, for seconds only. None is measured.
MFU_UPDATE = 0.35
MFU_LOG_PROBS = 0.35
MFU_PREFILL = 0.40
BANDWIDTH_DECODE = 0.60


@dataclass(frozen=True)
class Work:
    """One stage of a step, over all GPUs."""

    name: str
    tokens: int
    flops: float
    seconds: float | None  # None: the accelerator's figures are not known


def forward_flops(shape: ModelShape, tokens: float, context: float) -> float:
    """Of a forward pass: two per weight and token, and attention over ``context`` earlier tokens on average.

    The embedding is a look-up; the output layer is a matrix product whether tied or not.
    """
    matrices = shape.num_hidden_layers * shape.layer_sharded + shape.embedding
    attention = 2 * 2 * shape.num_hidden_layers * shape.query_size * context
    return tokens * (2 * matrices + attention)


def step(job: Job, accelerator: Accelerator | None, response_tokens: float) -> list[Work]:
    """Work of one step in its order.

    Args:
        response_tokens: mean length of a response, and of a demonstration.
    """
    batches, shape, training = job.batches, job.shape, job.training
    sequences = batches.questions * batches.rollouts
    prompt = batches.prompt_tokens / 2  # half of the longest, as for responses unless the caller knows better
    length = prompt + response_tokens
    tokens = sequences * length
    forward = forward_flops(shape, tokens, length / 2)
    again = 1 if training.recompute.granularity == "full" else 0
    peak = job.gpus * accelerator.flops if accelerator and accelerator.flops else None

    def timed(name: str, count: float, flops: float, utilization: float) -> Work:
        return Work(name, int(count), flops, flops / (peak * utilization) if peak else None)

    result = [_rollout(job, accelerator, sequences, prompt, response_tokens)]
    if training.log_probs:
        result.append(timed("old log-probs", tokens, forward, MFU_LOG_PROBS))
    if training.reference:
        result.append(timed("reference log-probs", tokens, forward, MFU_LOG_PROBS))
    result.append(timed("RL update", tokens * batches.epochs, forward * (3 + again) * batches.epochs, MFU_UPDATE))
    if training.supervised:
        demonstrated = batches.demonstrations * length
        flops = forward_flops(shape, demonstrated, length / 2) * (3 + again)
        result.append(timed("supervised update, when due", demonstrated, flops, MFU_UPDATE))
    return result


def _rollout(job: Job, accelerator: Accelerator | None, sequences: int, prompt: float, response: float) -> Work:
    """Generation: prompts once a question (prefix caching), then one token at a time, bound by memory bandwidth."""
    shape, batches = job.shape, job.batches
    prefill = forward_flops(shape, batches.questions * prompt, prompt / 2)
    decode = forward_flops(shape, sequences * response, prompt + response / 2)
    seconds = None
    if accelerator and accelerator.flops and accelerator.bandwidth:
        rollout = job.rollout
        replicas = max(1, job.gpus // (rollout.tensor * rollout.pipeline))
        together = concurrent(job, accelerator.memory, prompt + response / 2)
        together = max(1.0, min(together, sequences / replicas))
        read = vllm_weights(job) + together * (prompt + response / 2) * kv_bytes_per_token(job)
        passes = sequences / replicas / together * response
        decoding = passes * read / (accelerator.bandwidth * BANDWIDTH_DECODE)
        seconds = decoding + prefill / (job.gpus * accelerator.flops * MFU_PREFILL)
    return Work("rollout", int(batches.questions * prompt + sequences * response), prefill + decode, seconds)


def concurrent(job: Job, memory: int, length: float) -> float:
    """Sequences of ``length`` tokens that a vLLM replica's KV cache holds, at most `max_num_seqs`."""
    return min(job.rollout.max_num_seqs, max(0, kv_cache(job, memory)) / kv_bytes_per_token(job) / length)
