"""Computes tokens, floating-point operations and seconds of a training step."""

from dataclasses import dataclass

from .hardware import Accelerator
from .job import LOG_PROBS, SUPERVISED, UPDATE, Job
from .memory import kv_bytes_per_token, kv_cache, vllm_weights
from .shapes import ModelShape

# Assumed fractions of the data sheet's figures. They affect only the estimated seconds, and none is measured.
MFU_UPDATE = 0.35
MFU_LOG_PROBS = 0.35
MFU_PREFILL = 0.40
BANDWIDTH_DECODE = 0.60


@dataclass(frozen=True)
class Work:
    """One stage of a step, over all GPUs.

    Attributes:
        name: name of the stage.
        tokens: tokens that it processes.
        flops: floating-point operations.
        seconds: estimated duration; None if the accelerator's figures are unknown.
    """

    name: str
    tokens: int
    flops: float
    seconds: float | None


def forward_flops(shape: ModelShape, tokens: float, context: float) -> float:
    """Return the floating-point operations of a forward pass: two per weight and token, plus attention.

    The embedding is a look-up. The output layer is a matrix product, whether tied or not.

    Args:
        shape: the model.
        tokens: number of tokens.
        context: mean number of earlier tokens that a token attends to.
    """
    matrices = shape.num_hidden_layers * shape.layer_sharded + shape.embedding
    attention = 2 * 2 * shape.num_hidden_layers * shape.query_size * context
    return tokens * (2 * matrices + attention)


def step(job: Job, accelerator: Accelerator | None, response_tokens: float) -> list[Work]:
    """Return the stages of one step, in order.

    Args:
        job: the job.
        accelerator: the GPU; None on CPU.
        response_tokens: mean length of a response and of a demonstration.
    """
    batches, training = job.batches, job.training
    prompt = batches.prompt_tokens / 2  # half of the longest, like the default for responses
    length = prompt + response_tokens
    again = 1 if training.recompute.granularity == "full" else 0
    peak = job.gpus * accelerator.flops if accelerator and accelerator.flops else None

    budgets = {
        LOG_PROBS: training.log_prob_token_budget,
        UPDATE: training.token_budget,
        SUPERVISED: training.sft_token_budget,
    }

    def timed(name: str, purpose: str, sequences: int, passes: int) -> Work:
        tokens = sequences * length
        flops = forward_flops(job.shape, tokens, length / 2) * passes
        utilization = MFU_LOG_PROBS if purpose == LOG_PROBS else MFU_UPDATE
        utilization *= _busy(job, purpose, budgets[purpose], length)
        return Work(name, int(tokens), flops, flops / (peak * utilization) if peak else None)

    result = []
    if training.rollouts:
        sequences = batches.questions * batches.rollouts
        result.append(_rollout(job, accelerator, batches.questions * batches.sampled, prompt, response_tokens))
        if batches.retries:
            result.append(_times(batches.retries, result[0], "asked again, at most"))
        if training.log_probs:
            result.append(timed("old log-probs", LOG_PROBS, sequences, 1))
        if training.reference:
            result.append(timed("reference log-probs", LOG_PROBS, sequences, 1))
        result.append(timed("RL update", UPDATE, sequences * batches.epochs, 3 + again))
    if training.supervised:
        when = ", when due" if training.rollouts else ""
        result.append(timed(f"supervised update{when}", SUPERVISED, batches.supervised, 3 + again))
    return result


def _busy(job: Job, purpose: str, budget: int, length: float) -> float:
    """Return the fraction of a pass in which a pipeline stage works; it waits while the pipeline fills and empties.

    With p stages and m micro-batches of a rank this is m / (m + p - 1), as in Megatron-LM (arXiv 2104.04473).

    Args:
        job: the job.
        purpose: of the pass.
        budget: tokens of a micro-batch on one GPU.
        length: mean tokens of a sequence.
    """
    training = job.training
    tokens = job.sequences_per_rank(purpose) * length / training.context
    micro_batches = max(1.0, tokens / budget)
    return micro_batches / (micro_batches + training.pipeline - 1)


def _rollout(job: Job, accelerator: Accelerator | None, sequences: int, prompt: float, response: float) -> Work:
    """Return the work of generation: one prefill per question (prefix caching), then bandwidth-bound decoding."""
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


def _times(rounds: int, one: Work, name: str) -> Work:
    """Return the work of several rounds that are each like `one`."""
    seconds = one.seconds * rounds if one.seconds is not None else None
    return Work(name, one.tokens * rounds, one.flops * rounds, seconds)


def concurrent(job: Job, memory: int, length: float) -> float:
    """Return how many sequences a vLLM replica decodes at once: those that its KV cache holds, up to `max_num_seqs`.

    Args:
        job: the job.
        memory: bytes of a GPU.
        length: tokens per sequence.
    """
    return min(job.rollout.max_num_seqs, max(0, kv_cache(job, memory)) / kv_bytes_per_token(job) / length)
