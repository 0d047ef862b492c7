"""What of a training configuration decides memory and work, as plain numbers."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..methods import Needs, read_method
from ..settings import reuses_log_probs
from ..upstream.transformer_engine import found_in_another_process
from .shapes import ModelShape, load

LOG_PROBS, UPDATE, SUPERVISED = "log-probs", "update", "supervised"  # what a micro-batch is made for

_BYTES = {"float32": 4, "fp32": 4, "bfloat16": 2, "bf16": 2, "float16": 2, "fp16": 2, "auto": 2}


@dataclass(frozen=True)
class Recompute:
    """Megatron's activation recomputation; names are its settings."""

    granularity: str | None = None
    modules: tuple[str, ...] = ()
    method: str | None = None
    layers: int = 1


@dataclass(frozen=True)
class Training:
    """One rank of the Megatron actor."""

    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    data: int = 1
    element_bytes: int = 2  # of weights and activations
    gradient_bytes: int = 4  # of the accumulation buffer
    token_budget: int = 16384  # tokens per micro-batch and GPU of the RL update
    sft_token_budget: int = 16384
    log_prob_token_budget: int = 16384
    entropy: bool = True  # the RL update needs the entropy
    fused_logits: bool = True  # log-probs are computed with the output layer, in blocks of logits
    fused_activation: bool = True  # Megatron's fused SwiGLU
    sequence_parallel: bool = True
    cuda: bool = True
    transformer_engine: bool = True
    recompute: Recompute = field(default_factory=Recompute)
    shared_rotary: bool = True  # layers share the cosines and sines of a micro-batch
    rollouts: bool = True  # there is an RL update
    supervised: bool = True
    own_step: bool = True  # of the supervised update; otherwise it joins the RL update
    separate_optimizer: bool = False
    param_offload: bool = False
    optimizer_offload: bool = False
    log_probs: bool = True  # old log-probs have a pass of their own
    reference: bool = False
    reference_offload: bool = False
    gathered_checkpoint: bool = True  # a checkpoint gathers the optimizer of all data-parallel ranks
    gathered_on_one_rank: bool = False  # on the first of them, otherwise on all
    saves: bool = True


@dataclass(frozen=True)
class Rollout:
    """One rank of a vLLM replica."""

    tensor: int = 1
    pipeline: int = 1
    element_bytes: int = 2
    gpu_memory_utilization: float = 0.5
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int = 9216
    sleeps: bool = True  # gives weights and cache back while training
    bucket_bytes: int = 2048 << 20
    blocks: int | None = None  # CPU: blocks of the KV cache, if given


@dataclass(frozen=True)
class Batches:
    """Questions and lengths of a step."""

    questions: int = 128
    rollouts: int = 8
    mini_batch: int = 64
    epochs: int = 1
    demonstrations: int = 64
    demonstration_tokens: int = 8192
    supervised: int = 64  # demonstrations of all supervised updates of a step, each as often as it is passed
    joined: bool = False  # demonstrations are among the rows of the RL update
    sampled: int = 8  # rollouts that are generated; a demonstration may have the place of one
    prompt_tokens: int = 1024
    response_tokens: int = 8192
    retries: int = 0  # the most times that a step asks a question again

    @property
    def longest(self) -> int:
        return self.prompt_tokens + max(self.response_tokens, self.demonstration_tokens)


@dataclass(frozen=True)
class Length:
    """How long a run is, and which checkpoints it leaves.

    Attributes:
        steps: None: not known before the data is read.
        save_every: steps between two checkpoints, besides that of the last step; None: there are none.
        keep: number of checkpoints that stay; None: all.
    """

    steps: int | None = None
    save_every: int | None = None
    keep: int | None = None

    @property
    def saved(self) -> int | None:
        """Checkpoints that the run writes; None: not known."""
        if self.save_every is None:
            return 0
        return None if self.steps is None else -(-self.steps // self.save_every)

    @property
    def kept(self) -> int | None:
        """Checkpoints on disk when the run ends; None: not known."""
        if self.keep is None or self.saved is None:
            return self.keep or self.saved
        return min(self.keep, self.saved)


@dataclass(frozen=True)
class Job:
    """Everything that planning reads."""

    shape: ModelShape
    shape_source: str
    nodes: int
    gpus_per_node: int
    cuda: bool
    training: Training
    rollout: Rollout
    batches: Batches
    length: Length = field(default_factory=Length)

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    def tokens(self, budget: int, purpose: str) -> int:
        """Tokens of the largest micro-batch on one GPU: the budget, or everything there is if that is less."""
        return min(budget, self._tokens_per_gpu(purpose))

    def micro_batches(self, budget: int, purpose: str) -> int:
        """Number of micro-batches of one pass, if all sequences are of the longest."""
        return -(-self._tokens_per_gpu(purpose) // budget)

    @property
    def fewest_micro_batches(self) -> int:
        """Number of micro-batches of the update that has the fewest."""
        training = self.training
        updates = [(training.token_budget, UPDATE)] * training.rollouts
        updates += [(training.sft_token_budget, SUPERVISED)] * training.supervised
        return min((self.micro_batches(budget, purpose) for budget, purpose in updates), default=1)

    def longest(self, purpose: str) -> int:
        """Tokens of the longest sequence."""
        batches = self.batches
        if purpose == SUPERVISED:
            return batches.prompt_tokens + batches.demonstration_tokens
        return batches.prompt_tokens + max(batches.response_tokens, batches.demonstration_tokens * batches.joined)

    def sequences_per_rank(self, purpose: str) -> int:
        """Sequences of one pass on one data-parallel rank."""
        batches = self.batches
        sequences = {
            LOG_PROBS: batches.questions * batches.rollouts,
            UPDATE: batches.mini_batch * batches.rollouts,
            SUPERVISED: batches.demonstrations,
        }[purpose]
        return -(-sequences // self.training.data)

    def _tokens_per_gpu(self, purpose: str) -> int:
        return -(-self.sequences_per_rank(purpose) * self.longest(purpose) // self.training.context)


def read(
    config: DictConfig, transformer_engine: bool | None = None, model: tuple[ModelShape, str] | None = None
) -> Job:
    """The job that `config` (composed, unresolved interpolations allowed) describes.

    Args:
        transformer_engine: whether the training machine has it; None looks on this one.
        model: its shape and where that comes from; None: as `load` finds them.

    Raises:
        UnknownModel: the model's shape is not known.
    """
    shape, source = model or load(config.actor_rollout_ref.model.path)
    trainer = config.trainer
    return Job(
        shape=shape,
        shape_source=source,
        nodes=trainer.nnodes,
        gpus_per_node=trainer.n_gpus_per_node,
        cuda=trainer.device == "cuda",
        training=_training(config, transformer_engine),
        rollout=_rollout(config),
        batches=_batches(config),
        length=Length(
            steps=trainer.total_training_steps,
            save_every=trainer.save_freq if trainer.save_freq > 0 else None,
            keep=trainer.max_actor_ckpt_to_keep,
        ),
    )


def _training(config: DictConfig, transformer_engine: bool | None) -> Training:
    actor, needs = config.actor_rollout_ref.actor, _needs(config)
    megatron = actor.megatron
    tensor, pipeline = megatron.tensor_model_parallel_size, megatron.pipeline_model_parallel_size
    context = megatron.context_parallel_size
    cuda = config.trainer.device == "cuda"
    if transformer_engine is None:
        transformer_engine = cuda and found_in_another_process() is None
    budget = actor.ppo_max_token_len_per_gpu
    correction = config.algorithm.get("rollout_correction") or {}
    return Training(
        tensor=tensor,
        pipeline=pipeline,
        context=context,
        data=max(1, config.trainer.nnodes * config.trainer.n_gpus_per_node // (tensor * pipeline * context)),
        element_bytes=_BYTES[str(megatron.dtype)],
        gradient_bytes=_gradient_bytes(actor),
        token_budget=budget,
        sft_token_budget=needs.token_budget or budget,
        log_prob_token_budget=config.actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu,
        entropy=actor.entropy_coeff != 0 or actor.calculate_entropy,
        fused_logits=bool(config.actor_rollout_ref.model.use_fused_kernels),
        fused_activation=bool(megatron.override_transformer_config.get("bias_activation_fusion", False)),
        # verl does not pass its own setting of this name to mbridge, which turns it on.
        sequence_parallel=bool(megatron.override_transformer_config.get("sequence_parallel", True)) and tensor > 1,
        cuda=cuda,
        transformer_engine=transformer_engine and cuda,
        recompute=_recompute(megatron.override_transformer_config),
        shared_rotary=bool(config.relift.speed_patches),
        rollouts=needs.rollouts,
        supervised=needs.supervised_rows > 0,
        own_step=needs.own_step,
        separate_optimizer=needs.separate_moments,
        param_offload=bool(megatron.param_offload),
        optimizer_offload=bool(megatron.optimizer_offload),
        log_probs=not (correction.get("bypass_mode", False) or reuses_log_probs(config)),
        reference=bool(actor.use_kl_loss or config.algorithm.use_kl_in_reward),
        reference_offload=bool(config.actor_rollout_ref.ref.megatron.param_offload),
        gathered_checkpoint=bool(megatron.dist_ckpt_optim_fully_reshardable),
        gathered_on_one_rank=bool(megatron.distrib_optim_fully_reshardable_mem_efficient),
        saves=config.trainer.save_freq > 0 and "optimizer" in actor.checkpoint.save_contents,
    )


def _needs(config: DictConfig) -> Needs:
    method, settings = read_method(OmegaConf.to_container(config.method, resolve=True))
    return method.needs(settings)


def _gradient_bytes(actor: DictConfig) -> int:
    """As verl's engine decides it: fp32, unless the precision-aware optimizer is given a smaller type."""
    optim = actor.optim
    if optim.get("use_precision_aware_optimizer", False):
        return _BYTES[str(optim.get("main_grads_dtype", "fp32"))]
    return 4


def _recompute(override: Any) -> Recompute:
    return Recompute(
        granularity=override.get("recompute_granularity"),
        modules=tuple(override.get("recompute_modules") or ()),
        method=override.get("recompute_method"),
        layers=override.get("recompute_num_layers") or 1,
    )


def _rollout(config: DictConfig) -> Rollout:
    rollout = config.actor_rollout_ref.rollout
    return Rollout(
        tensor=rollout.tensor_model_parallel_size,
        pipeline=rollout.pipeline_model_parallel_size,
        element_bytes=_BYTES[str(rollout.dtype)],
        gpu_memory_utilization=rollout.gpu_memory_utilization,
        max_num_seqs=rollout.max_num_seqs,
        max_num_batched_tokens=rollout.max_num_batched_tokens,
        max_model_len=rollout.max_model_len or rollout.prompt_length + rollout.response_length,
        sleeps=bool(rollout.free_cache_engine),
        bucket_bytes=rollout.checkpoint_engine.update_weights_bucket_megabytes << 20,
        blocks=(rollout.engine_kwargs.get("vllm") or {}).get("num_gpu_blocks_override"),
    )


def _batches(config: DictConfig) -> Batches:
    data, actor, needs = config.data, config.actor_rollout_ref.actor, _needs(config)
    rollouts = config.actor_rollout_ref.rollout.n
    return Batches(
        questions=data.train_batch_size,
        rollouts=rollouts,
        mini_batch=actor.ppo_mini_batch_size,
        epochs=actor.ppo_epochs,
        demonstrations=needs.supervised_rows,
        supervised=_supervised(needs, data.train_batch_size),
        demonstration_tokens=needs.demonstrations.max_tokens if needs.demonstrations is not None else 0,
        joined=needs.joined_rows > 0,
        sampled=rollouts - needs.in_place,
        prompt_tokens=data.max_prompt_length,
        response_tokens=data.max_response_length,
        retries=needs.retries,
    )


def _supervised(needs: Needs, questions: int) -> int:
    """Return the demonstrations of a step's supervised updates: without rollouts, one of each question."""
    rows = needs.supervised_rows
    if needs.rollouts:
        questions = max(rows, min(rows * needs.updates, questions // rows * rows)) if rows else 0
    return questions * needs.epochs
