"""Computes the bytes of a run, by phase and part.

The formulas come from verl 0.9.1's Megatron engine (`workers/engine/megatron/transformer_impl.py`: logits, entropy,
offloading), from Megatron-Core's distributed optimizer, from the tensors that autograd keeps in a layer of each spec
(for the local spec listed by `torch.autograd.graph.saved_tensors_hooks`, for Transformer Engine derived from the
modules' backward passes), and from arXiv 2205.05198 for sequence parallelism and recomputation. The local spec in fp32
is checked against measurements (`benchmarks/engine/plan_memory.py`). bf16 on CUDA is derived and not measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from .job import LOG_PROBS, SUPERVISED, UPDATE, Job, Training
from .shapes import ModelShape

MIB, GIB = 1 << 20, 1 << 30

# ---- assumed on CUDA, not measured -----------------------------------------------------------------------------------
CUDA_CONTEXT = int(1.5 * GIB)  # context, cuBLAS workspaces and NCCL buffers of the training process
VLLM_ASLEEP = int(1.5 * GIB)  # context and CUDA graphs that a sleeping vLLM keeps
CUDA_GRAPHS = GIB
FRAGMENTATION = 0.06  # share of the memory that torch's allocator cannot use

# Bytes of a block of fp32 logits, as `upstream/speed/vocabulary.py` has them.
LOGIT_BLOCK, LOGIT_BLOCK_CPU = 256 * MIB, 32 * MIB

# ---- measured on CPU: `python -m benchmarks.engine.plan_memory`, CPU_* with `--processes` -------------------
# Proportional set size of a run with a 0.4M-parameter model, minus what the arithmetic below accounts for.
CPU_SYSTEM = 2600 * MIB  # driver, Ray, TransferQueue and vLLM's API server, once per machine
CPU_WORKER = 700 * MIB  # each training rank
CPU_VLLM = 300 * MIB  # each vLLM rank
# The same of runs with SmolLM2-135M.
CPU_REPLICA = 900 * MIB  # server and engine of each further vLLM replica
# Libraries and thread pools that a training process loads in its first step.
WORKER_FIRST_STEP = 60 * MIB
# Resident memory of tensors relative to their size. It exceeds 1 because the training processes keep freed memory
# (upstream/speed/malloc.py), gaps included: 1.3 to 1.4 over three updates of a real model, more over a
# run, whose micro-batches differ. With MALLOC_MMAP_THRESHOLD_ in the environment glibc returns it.
HEAP_FACTOR = 1.5
HEAP_FACTOR_MMAP = 1.06
CPU_BLOCK = 128  # tokens of a block of vLLM's KV cache on CPU


Parts = Mapping[str, int]


@dataclass(frozen=True)
class Phase:
    """What is in memory at the same time.

    Attributes:
        name: name of the phase.
        parts: bytes by part, per GPU on CUDA and per machine on CPU.
    """

    name: str
    parts: Parts

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


# ---- parts of one training rank --------------------------------------------------------------------------------------


def activation_elements(shape: ModelShape, training: Training, padding: float = 1.0) -> float:
    """Return the elements per token that one layer keeps for its backward pass.

    Args:
        shape: the model.
        training: the parallelism, layer spec and selective recomputation.
        padding: padded tokens / tokens, because the local spec's attention pads sequences of a micro-batch.
    """
    tensor = training.tensor
    query, key_value = shape.query_size, shape.key_value_size
    # Inputs and outputs of two norms and, in the local spec, fp32 copies. On a CPU torch's norm keeps its input in fp32
    # besides. Sequence parallelism divides them.
    hidden = (4 if training.transformer_engine else 6) * shape.hidden_size
    if not training.cuda and training.element_bytes < 4:
        hidden += 2 * shape.hidden_size * 4 / training.element_bytes
    hidden /= tensor if training.sequence_parallel else 1
    if padding == 1.0 or training.transformer_engine:
        # The projection's output (values are a view of it), rotated queries and keys, and the attention's output.
        attention = (query + 2 * key_value) + query + key_value + query
        if not training.transformer_engine:
            attention += query  # the output in its own layout and in that of the projection behind it
    else:
        # Padded queries, keys, values and output, and the output without padding.
        attention = padding * (2 * query + 2 * key_value) + query
    if shape.query_key_norm and not training.transformer_engine:
        attention += (query + key_value) * 4 / training.element_bytes  # their input in fp32
    elif shape.query_key_norm:
        attention += query  # copied out of the projection's output
    # Cosines and sines for queries and for keys, not divided; with the speed patches all layers have the same.
    rotary = 0 if training.shared_rotary else 4 * shape.head_dim
    # Output of the first projection and what becomes of it. Megatron's fused SwiGLU keeps nothing between them;
    # otherwise there are the SiLU of its gate and a copy of its other half (0 is added to it).
    feed_forward = (3 if training.fused_activation else 5) * shape.intermediate_size
    recompute = training.recompute
    if recompute.granularity == "selective":
        feed_forward *= "mlp" not in recompute.modules
        if "layernorm" in recompute.modules:
            hidden -= 2 * shape.hidden_size / (tensor if training.sequence_parallel else 1)
    return hidden + (attention + feed_forward) / tensor + rotary


def activations(shape: ModelShape, training: Training, tokens: int, stage: int, padding: float = 1.0) -> int:
    """Return the bytes of activations when the backward pass of a pipeline stage begins.

    Args:
        shape: the model.
        training: the parallelism, layer spec and recomputation.
        tokens: tokens of a micro-batch on this GPU.
        stage: the pipeline stage.
        padding: see `activation_elements`.
    """
    layers = shape.num_hidden_layers // training.pipeline
    in_flight = training.pipeline - stage  # 1F1B: the first stage runs ahead by the length of the pipeline
    layer = activation_elements(shape, training, padding)
    boundary = shape.hidden_size / (training.tensor if training.sequence_parallel else 1)
    recompute = training.recompute
    # Gradients in the backward pass of a feed-forward layer, beyond what it frees.
    backward = 2 * shape.intermediate_size / training.tensor + 3 * boundary
    if recompute.granularity == "full":
        if recompute.method == "block":
            recomputed = min(recompute.layers, layers)
            kept, working = recomputed * boundary + (layers - recomputed) * layer, layer
        else:
            kept, working = layers / recompute.layers * boundary, recompute.layers * layer
    else:
        kept, working = layers * layer, 0.0
    working += backward
    # The logits of a micro-batch are freed before the backward pass of its layers, so that the larger of both counts.
    if stage == training.pipeline - 1:
        if training.fused_logits and shape.tie_word_embeddings and training.pipeline == 1:
            # The gradient of the tied matrix waits for its other part, which comes with the embedding at the end.
            working += shape.embedding / training.tensor / tokens
        working = max(0.0, working - logits(shape, training, tokens) / (tokens * training.element_bytes))
    gathered = shape.hidden_size if training.sequence_parallel else 0  # buffer for a layer's whole input
    last = 3 * boundary if stage == training.pipeline - 1 else 0  # the final norm
    return int((in_flight * kept + working + gathered + last) * tokens * training.element_bytes)


def logits(shape: ModelShape, training: Training, tokens: int, entropy: bool = True, gradient: bool = True) -> int:
    """Return the bytes at the peak of what a rank of the last pipeline stage makes of the final hidden states.

    Computed apart from the output layer: in bf16 the engine casts the logits to fp32. With the entropy there are a copy
    and a softmax besides, and the gradient takes their place; torch.compile avoids the entropy's product. Without it
    the gradient is the only copy. In fp32, on a CPU, these are the logits, a copy, the entropy's softmax and the
    product.

    Computed with it (`upstream/speed/vocabulary.py`): two blocks of logits and the hidden states of all tensor-parallel
    ranks; in the backward pass also a copy of these and the gradients of both factors.

    Args:
        shape: the model.
        training: the parallelism and dtype.
        tokens: tokens of a micro-batch on this GPU.
        entropy: whether the pass computes the entropy.
        gradient: whether a backward pass follows.
    """
    elements = tokens * shape.vocab_size // training.tensor
    fp32 = training.element_bytes == 4
    block = LOGIT_BLOCK if training.cuda else LOGIT_BLOCK_CPU
    if not training.fused_logits or (fp32 and 4 * elements <= block):
        return elements * (16 if fp32 else 12 if entropy else 8)
    blocks = 2 * min(block, 4 * elements)
    hidden, weight = tokens * shape.hidden_size, shape.embedding // training.tensor
    gathered = hidden * training.element_bytes if training.sequence_parallel else 0
    forward = blocks + (0 if fp32 or training.cuda else 4 * weight)  # a CPU multiplies in fp32
    # A copy has the hidden states that a loss reads, at most all. Their gradient adds up in fp32. A block of gradients
    # in bf16 is there with the logits.
    of_hidden = (4 + training.element_bytes) * hidden
    backward = blocks + (0 if fp32 else blocks // 4) + of_hidden + weight * training.element_bytes
    return gathered + (max(forward, backward) if gradient else forward)


def inference_activations(shape: ModelShape, training: Training, tokens: int) -> int:
    """Return the bytes of one layer in a forward pass without gradients."""
    layer = 5 * shape.intermediate_size / training.tensor + 2 * shape.hidden_size
    return int(layer * tokens * training.element_bytes)


def weights(shape: ModelShape, training: Training, stage: int) -> int:
    """Return the bytes of the weights on a rank."""
    return shape.on_rank(training.tensor, training.pipeline, stage) * training.element_bytes


def gradients(shape: ModelShape, training: Training, stage: int) -> int:
    """Return the bytes of the gradient buffer on a rank."""
    return shape.on_rank(training.tensor, training.pipeline, stage) * training.gradient_bytes


def optimizer(shape: ModelShape, training: Training, stage: int) -> int:
    """Return the bytes of the optimizer on a rank, which shares it with the other data-parallel ranks.

    It holds AdamW's two fp32 moments, and an fp32 master copy unless the weights are fp32.
    """
    parameters = shape.on_rank(training.tensor, training.pipeline, stage)
    each = 8 if training.element_bytes == 4 else 12
    return parameters * each // (training.data * training.context)


def second_optimizer(shape: ModelShape, training: Training, stage: int) -> int:
    """Return the bytes of the supervised update's own moments; 0 unless `method.sft.optimizer=separate`."""
    if not training.separate_optimizer:
        return 0
    parameters = shape.on_rank(training.tensor, training.pipeline, stage)
    return parameters * 8 // (training.data * training.context)


# ---- parts of one vLLM rank ------------------------------------------------------------------------------------------


def kv_bytes_per_token(job: Job) -> int:
    """Return the bytes of KV cache per token on one vLLM rank. Fewer heads than ranks are copied."""
    rollout, shape = job.rollout, job.shape
    heads = max(1, shape.num_key_value_heads // rollout.tensor)
    return 2 * (shape.num_hidden_layers // rollout.pipeline) * heads * shape.head_dim * rollout.element_bytes


def vllm_weights(job: Job) -> int:
    """Return the bytes of the weights on one vLLM rank."""
    rollout = job.rollout
    return job.shape.parameters // (rollout.tensor * rollout.pipeline) * rollout.element_bytes


def vllm_working(job: Job) -> int:
    """Return vLLM's working memory: a pass of `max_num_batched_tokens`, fp32 sampling and CUDA graphs, in bytes."""
    rollout, shape = job.rollout, job.shape
    layer = (4 * shape.hidden_size + (shape.query_size + 2 * shape.key_value_size) / rollout.tensor) + (
        3 * shape.intermediate_size / rollout.tensor
    )
    sampling = rollout.max_num_seqs * shape.vocab_size * 4 * 3
    return int(rollout.max_num_batched_tokens * layer * rollout.element_bytes + sampling) + CUDA_GRAPHS


def kv_cache(job: Job, memory: int) -> int:
    """Return the bytes of the KV cache of a vLLM rank; 0 or less means that none fits."""
    rollout = job.rollout
    if not job.cuda:
        return (rollout.blocks or 0) * CPU_BLOCK * kv_bytes_per_token(job) or GIB
    return int(rollout.gpu_memory_utilization * memory) - vllm_weights(job) - vllm_working(job)


# ---- phases ----------------------------------------------------------------------------------------------------------


def phases(job: Job, memory: int, padding: float = 1.0, heap_factor: float = HEAP_FACTOR) -> list[Phase]:
    """Return the phases of a step: on CUDA per GPU of the pipeline stage that needs most, on CPU per machine.

    Args:
        job: the job.
        memory: bytes of a GPU, which determine vLLM's share. Unused on CPU.
        padding: see `activation_elements`.
        heap_factor: see `HEAP_FACTOR`. Unused on CUDA.
    """
    if not job.cuda:
        return _cpu_phases(job, padding, heap_factor)
    stages = [_cuda_phases(job, memory, stage, padding) for stage in {0, job.training.pipeline - 1}]
    return max(stages, key=lambda stage: max(phase.total for phase in stage))


def generation(job: Job) -> str:
    """Return the name of the phase in which vLLM generates: without rollouts it does so for validation only."""
    return "rollout" if job.training.rollouts else "validation"


def _updates(job: Job) -> tuple[tuple[str, int, bool], ...]:
    """Return (name, tokens of the largest micro-batch per GPU, needs the entropy) per update; 0 tokens: no update."""
    training = job.training
    supervised = job.tokens(training.sft_token_budget, SUPERVISED) if training.supervised else 0
    return (
        ("RL update", job.tokens(training.token_budget, UPDATE) if training.rollouts else 0, training.entropy),
        ("supervised update", supervised, True),
    )


def _resident(job: Job, stage: int, offloaded: bool) -> dict[str, int]:
    """Return the bytes that Megatron keeps by part; `offloaded` means while verl's offloading is in effect."""
    shape, training = job.shape, job.training
    without_weights = offloaded and training.param_offload
    without_optimizer = offloaded and training.optimizer_offload
    parts = {
        "weights": 0 if without_weights else weights(shape, training, stage),
        "gradients": 0 if without_weights else gradients(shape, training, stage),
        "optimizer": 0 if without_optimizer else optimizer(shape, training, stage),
        # With offloading, the set of moments that is not in use stays in host memory.
        "second optimizer": 0 if training.optimizer_offload else second_optimizer(shape, training, stage),
    }
    if training.reference and not training.reference_offload:
        parts["reference model"] = weights(shape, training, stage)
    return parts


def _cuda_phases(job: Job, memory: int, stage: int, padding: float) -> list[Phase]:
    shape, training, rollout = job.shape, job.training, job.rollout
    overhead = {"contexts": CUDA_CONTEXT + VLLM_ASLEEP}
    asleep: dict[str, int] = {}
    if not rollout.sleeps:
        asleep = {"vLLM": int(rollout.gpu_memory_utilization * memory)}
    cache = max(0, kv_cache(job, memory))
    result = [
        Phase(
            generation(job),
            _resident(job, stage, True)
            | {
                "vLLM weights": vllm_weights(job),
                "vLLM working memory": vllm_working(job),
                "KV cache": cache,
                "contexts": CUDA_CONTEXT,
            },
        )
    ]
    if training.rollouts and (training.log_probs or training.reference):
        result.append(Phase("log-probs", _at_log_probs(job, stage, True) | asleep | overhead))
    for name, tokens, entropy in _updates(job):
        if tokens:
            result.append(Phase(name, _at_update(job, stage, tokens, entropy, padding) | asleep | overhead))
    sync = _resident(job, stage, True) | {"weights": weights(shape, training, stage)}
    buckets = {"weight-sync buckets": sync_buckets(job)}
    result.append(Phase("weight sync", sync | (asleep or {"vLLM weights": vllm_weights(job)}) | buckets | overhead))
    return result


def training_parts(job: Job, stage: int = 0, padding: float = 1.0) -> dict[str, dict[str, int]]:
    """Return the bytes by phase and part of one training rank, without what CUDA and vLLM take.

    Args:
        job: the job.
        stage: the pipeline stage.
        padding: see `activation_elements`.
    """
    found = {}
    if job.training.rollouts and (job.training.log_probs or job.training.reference):
        found["log-probs"] = _at_log_probs(job, stage, False)
    for name, tokens, entropy in _updates(job):
        if tokens:
            found[name] = _at_update(job, stage, tokens, entropy, padding)
    found["weight sync"] = _resident(job, stage, False) | {"weight-sync buckets": sync_buckets(job)}
    found["checkpoint"] = _resident(job, stage, False) | {"checkpoint": checkpoint_on_device(job, stage)}
    return found


def sync_buckets(job: Job) -> int:
    """Return the bytes that the transfer of weights takes on a rank: its bucket, and copies of the largest weight.

    A weight is received from its pipeline stage, gathered from the tensor-parallel ranks and concatenated.
    """
    training = job.training
    largest = job.shape.largest_tensor * training.element_bytes
    received = largest // training.tensor if training.pipeline > 1 else 0
    return job.rollout.bucket_bytes + received + (2 * largest if training.tensor > 1 else 0)


def checkpoint_on_device(job: Job, stage: int) -> int:
    """Return the bytes of device memory that gathering the optimizer for a checkpoint takes on a rank."""
    training = job.training
    if not training.gathered_checkpoint or training.gathered_on_one_rank:
        return 0
    # One of the three fp32 values of a parameter at a time: a share to send, and everybody's.
    bucket = _largest_bucket(job, stage)
    return 4 * bucket + 4 * bucket // (training.data * training.context)


def _largest_bucket(job: Job, stage: int) -> int:
    """Return the parameters of a rank that a checkpoint gathers at once.

    These are all of them, but for embeddings that two pipeline stages share, which have a bucket of their own.
    """
    shape, training = job.shape, job.training
    parameters = shape.on_rank(training.tensor, training.pipeline, stage)
    shared = shape.embedding // training.tensor
    if not shape.tie_word_embeddings or training.pipeline == 1 or 0 < stage < training.pipeline - 1:
        return parameters
    return max(shared, parameters - shared)


def checkpoint_on_host(job: Job, stage: int, first: bool) -> int:
    """Return the bytes of host memory that one rank's part of a checkpoint takes at its peak.

    Megatron-Core gathers the three fp32 values of every parameter that a rank has (master copy and two moments) from
    the data-parallel ranks, on one or on each of them. While the last one arrives, these exist: the three, this rank's
    shares of them, the last one as it arrived and concatenated, and the one before it, concatenated. Where one rank
    gathers for all, the writer's copies of all three come later and take no less.

    Args:
        job: the job.
        stage: the pipeline stage.
        first: whether the rank is the first of its data-parallel group.
    """
    training = job.training
    if not training.saves:
        return 0
    parameters, bucket = job.shape.on_rank(training.tensor, training.pipeline, stage), _largest_bucket(job, stage)
    ranks = training.data * training.context
    if not training.gathered_checkpoint:
        return 12 * parameters // ranks
    shares = 12 * bucket // ranks
    if training.gathered_on_one_rank and not first:
        return shares
    return 12 * parameters + max(12 * bucket + shares, 12 * parameters * training.gathered_on_one_rank)


def resume_on_host(job: Job, stage: int) -> int:
    """Return the bytes of host memory that one rank takes to resume from a checkpoint.

    A gathered one is read by all data-parallel ranks together, and each of them then gets all of it: the three fp32
    values of every parameter that it has.
    """
    training = job.training
    if not training.saves:
        return 0
    parameters = 12 * job.shape.on_rank(training.tensor, training.pipeline, stage)
    return parameters if training.gathered_checkpoint else parameters // (training.data * training.context)


def _ranks_of_node(job: Job, node: int) -> list[tuple[int, bool]]:
    """Return of each rank on a node its pipeline stage, and whether it is the first of its data-parallel group."""
    ranks, pipeline = min(job.gpus, job.gpus_per_node), job.training.pipeline
    found = []
    for rank in range(node * ranks, (node + 1) * ranks):
        # Megatron's order of ranks: tensor and context inside, then data, then pipeline.
        stage, within = divmod(rank, max(1, job.gpus // pipeline))
        found.append((min(stage, pipeline - 1), within < job.training.tensor))
    return found


def save_on_node(job: Job) -> int:
    """Return the bytes of host memory that saving a checkpoint takes on the node where it takes most."""
    nodes = (_ranks_of_node(job, node) for node in range(job.nodes))
    return max(sum(checkpoint_on_host(job, stage, first) for stage, first in ranks) for ranks in nodes)


def resume_on_node(job: Job) -> int:
    """Return the bytes of host memory that resuming from a checkpoint takes on the node where it takes most."""
    nodes = (_ranks_of_node(job, node) for node in range(job.nodes))
    return max(sum(resume_on_host(job, stage) for stage, _ in ranks) for ranks in nodes)


def checkpoint_on_node(job: Job) -> int:
    """Return the bytes of host memory that saving a checkpoint, or resuming from it, takes where it takes most."""
    return max(save_on_node(job), resume_on_node(job))


def offloaded_on_node(job: Job) -> int:
    """Return the bytes that verl's offloading moves to host memory on the node that has most of them."""
    shape, training = job.shape, job.training

    def of_rank(stage: int) -> int:
        moments = optimizer(shape, training, stage) + second_optimizer(shape, training, stage)
        return (
            moments * training.optimizer_offload
            + weights(shape, training, stage) * training.param_offload
            + weights(shape, training, stage) * (training.reference and training.reference_offload)
        )

    nodes = (_ranks_of_node(job, node) for node in range(job.nodes))
    return max(sum(of_rank(stage) for stage, _ in ranks) for ranks in nodes)


def checkpoint_on_disk(job: Job) -> int:
    """Return the bytes of a checkpoint in the file system, without its headers and the state of the data.

    It has the weights in the type that is trained, and of each optimizer the three fp32 values of every parameter.
    """
    training = job.training
    return job.shape.parameters * (training.element_bytes + 12 * (1 + training.separate_optimizer))


def rank_parts(job: Job, stage: int = 0, padding: float = 1.0) -> dict[str, int]:
    """Return the bytes by part of one training rank at the peak of an RL update.

    Args:
        job: the job.
        stage: the pipeline stage.
        padding: see `activation_elements`.
    """
    return _at_update(job, stage, job.tokens(job.training.token_budget, UPDATE), job.training.entropy, padding)


def _at_log_probs(job: Job, stage: int, offloaded: bool) -> dict[str, int]:
    shape, training = job.shape, job.training
    tokens = job.tokens(training.log_prob_token_budget, LOG_PROBS)
    parts = _resident(job, stage, offloaded) | {"weights": weights(shape, training, stage)}
    if training.reference:
        parts["reference model"] = weights(shape, training, stage)
    layer = inference_activations(shape, training, tokens)
    parts["activations"] = layer
    if stage == training.pipeline - 1:
        # The last layer has only its output left when the logits come.
        hidden = shape.hidden_size * tokens * training.element_bytes
        of_logits = logits(shape, training, tokens, gradient=False)
        if hidden + of_logits > layer:
            parts |= {"activations": hidden, "logits": of_logits}
    return parts


def _at_update(job: Job, stage: int, tokens: int, entropy: bool, padding: float) -> dict[str, int]:
    shape, training = job.shape, job.training
    parts = _resident(job, stage, False)
    parts["activations"] = activations(shape, training, tokens, stage, padding)
    if stage == training.pipeline - 1:
        parts["logits"] = logits(shape, training, tokens, entropy)
    return parts


def cpu_processes(ranks: int, replicas: int = 1) -> int:
    """Return the bytes that the processes of a run take on a CPU, whatever the model.

    Args:
        ranks: of the machine.
        replicas: vLLM replicas of the machine.
    """
    return CPU_SYSTEM + ranks * (CPU_WORKER + CPU_VLLM) + (replicas - 1) * CPU_REPLICA


def _cpu_phases(job: Job, padding: float, heap_factor: float) -> list[Phase]:
    """Return the phases of one machine. Processes keep their memory, so that phases differ only in what they add."""
    training = job.training
    ranks = _ranks_of_node(job, 0)
    kept = {
        "processes": cpu_processes(len(ranks), max(1, len(ranks) // (job.rollout.tensor * job.rollout.pipeline))),
        # vLLM's linear layers hold a packed copy in addition to the original.
        "vLLM weights": 2 * vllm_weights(job) * len(ranks),
        "KV cache": kv_cache(job, 0) * len(ranks),
        # The segments of the weights' way to vLLM stay (upstream/speed/weight_transfer.py).
        "weight-sync buckets": job.rollout.bucket_bytes * len(ranks),
    }

    def of_all(parts_of: Callable[[int], dict[str, int]]) -> dict[str, int]:
        total: dict[str, int] = {}
        for stage, _ in ranks:
            for name, size in parts_of(stage).items():
                total[name] = total.get(name, 0) + size
        return {name: int(size * heap_factor) for name, size in total.items()}

    resident = of_all(lambda stage: _resident(job, stage, False))
    result = [Phase(generation(job), kept | resident)]
    for name, tokens, entropy in _updates(job):
        if tokens:
            update = partial(_at_update, job, tokens=tokens, entropy=entropy, padding=padding)
            result.append(Phase(name, kept | of_all(update)))
    result.append(Phase("weight sync", kept | resident | {"weight-sync buckets": sync_buckets(job) * len(ranks)}))
    if training.saves:
        # The ranks have given back what updates have freed (upstream/speed/malloc.py).
        parts = {"checkpoint": sum(checkpoint_on_host(job, stage, first) for stage, first in ranks)}
        result.append(Phase("checkpoint", kept | resident | parts))
    return result
