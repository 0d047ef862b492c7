"""What can be known to fail before Ray starts.

Each check yields one line per problem: what is wrong, where, and what to do about it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from .run import checkpoints
from .settings import ReLIFTSettings, Schedule, SettingsError, SFTMode, SFTOptimizer, Source


class ConfigurationError(ValueError):
    """The run cannot work as configured. One line per problem."""


def settings_problems(config: DictConfig) -> Iterator[str]:
    try:
        settings = ReLIFTSettings.from_mapping(OmegaConf.to_container(config.relift, resolve=True))
    except SettingsError as error:
        yield str(error)
        return
    if config.actor_rollout_ref.actor.strategy != "megatron":
        yield (
            f"actor_rollout_ref.actor.strategy={config.actor_rollout_ref.actor.strategy}: only the Megatron engine "
            "is supported; leave model_engine=megatron"
        )
    if config.algorithm.adv_estimator == "gae":
        yield "algorithm.adv_estimator=gae needs a critic, which is disabled; set algorithm.adv_estimator=grpo"
    if not config.actor_rollout_ref.actor.megatron.use_distributed_optimizer:
        yield (
            "actor_rollout_ref.actor.megatron.use_distributed_optimizer=false: verl 0.9.1 cannot send weights to vLLM "
            "without the distributed optimizer's buffers; leave it true"
        )
    if settings.enable and config.actor_rollout_ref.rollout.n < 2:
        yield (
            f"actor_rollout_ref.rollout.n={config.actor_rollout_ref.rollout.n}: a group needs at least 2 rollouts; "
            "the paper uses 8"
        )
    if settings.rollout.batched:
        rollout = config.actor_rollout_ref.rollout
        if config.trainer.device == "cpu" and settings.rollout.seeded and rollout.enable_chunked_prefill:
            yield (
                "actor_rollout_ref.rollout.enable_chunked_prefill=true with relift.rollout.seeded=true: vLLM rewinds "
                "a request's random generator after a partial prefill, which a CPU generator cannot do; set one false"
            )
        if not rollout.enable_chunked_prefill and rollout.max_num_batched_tokens < rollout.max_model_len:
            yield (
                f"actor_rollout_ref.rollout.max_num_batched_tokens={rollout.max_num_batched_tokens} must be at least "
                f"max_model_len={rollout.max_model_len} while enable_chunked_prefill=false; raise it"
            )
        if rollout.multi_turn.enable:
            yield (
                "actor_rollout_ref.rollout.multi_turn.enable=true needs verl's agent loop: set "
                "relift.rollout.batched=false and reward.num_workers=8"
            )
        if config.reward.reward_model.enable:
            yield (
                "reward.reward_model.enable=true needs verl's agent loop: set relift.rollout.batched=false and "
                "reward.num_workers=8"
            )
    elif config.reward.num_workers < 1:
        yield "relift.rollout.batched=false needs verl's reward workers: set reward.num_workers=8"
    yield from _optimizer_problems(config, settings)
    yield from _checkpoint_problems(config)
    if settings.enable and settings.demonstrations.source is not Source.DATASET:
        variable = settings.teacher.api_key_env
        if variable and not os.environ.get(variable):
            yield (
                f"relift.teacher.api_key_env={variable}: the environment has no such variable; export the teacher's "
                "key under that name"
            )
    optim = config.actor_rollout_ref.actor.optim
    decay = optim.lr_decay_steps or config.trainer.total_training_steps
    if decay and optim.lr_warmup_steps >= decay:
        yield (
            f"actor_rollout_ref.actor.optim.lr_warmup_steps={optim.lr_warmup_steps} must be below the length of the "
            f"schedule, {decay} steps; lower it, or raise trainer.total_training_steps or optim.lr_decay_steps"
        )


def _optimizer_problems(config: DictConfig, settings: ReLIFTSettings) -> Iterator[str]:
    if not settings.enable:
        return
    actor = config.actor_rollout_ref.actor
    if settings.sft.optimizer is SFTOptimizer.SEPARATE:
        own = actor.optim.override_optimizer_config
        if actor.optim.get("use_precision_aware_optimizer") or own.get("use_precision_aware_optimizer"):
            yield (
                "relift.sft.optimizer=separate exchanges AdamW's fp32 moments, which use_precision_aware_optimizer "
                "stores in another form; set one of the two otherwise"
            )
        if own.get("optimizer_cpu_offload"):
            yield (
                "relift.sft.optimizer=separate does not know Megatron's optimizer_cpu_offload; use "
                "actor_rollout_ref.actor.megatron.optimizer_offload=true instead"
            )
    if settings.sft.mode is SFTMode.SPLICE and actor.megatron.override_ddp_config.get("overlap_grad_reduce"):
        yield (
            "relift.sft.mode=splice with override_ddp_config.overlap_grad_reduce=true would reduce gradients before "
            "both losses are in; set it to false or use relift.sft.mode=interleave"
        )


def _checkpoint_problems(config: DictConfig) -> Iterator[str]:
    trainer = config.trainer
    if config.actor_rollout_ref.actor.checkpoint.async_save:
        yield (
            "actor_rollout_ref.actor.checkpoint.async_save=true: a checkpoint would be named before it is whole; "
            "set it to false"
        )
    if trainer.resume_mode not in ("auto", "disable", "resume_path"):
        yield f"trainer.resume_mode={trainer.resume_mode} must be one of auto, disable, resume_path"
        return
    try:
        if trainer.resume_mode == "auto":
            checkpoints.latest(Path(trainer.default_local_dir))
        elif trainer.resume_mode == "resume_path":
            checkpoints.step_of(Path(trainer.resume_from_path or ""))
    except checkpoints.CheckpointError as error:
        yield str(error)


def batch_problems(config: DictConfig) -> Iterator[str]:
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    megatron, trainer = actor.megatron, config.trainer
    world = trainer.n_gpus_per_node * trainer.nnodes
    ranks = megatron.tensor_model_parallel_size * megatron.pipeline_model_parallel_size * megatron.context_parallel_size
    if world % ranks:
        yield (
            f"{world} GPUs (trainer.nnodes x trainer.n_gpus_per_node) cannot be divided into model replicas of {ranks} "
            "(actor_rollout_ref.actor.megatron: tensor x pipeline x context parallel); change one of them"
        )
        return
    replica = rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    if world % replica:
        yield (
            f"{world} GPUs cannot be divided into vLLM replicas of {replica} "
            "(actor_rollout_ref.rollout.tensor_model_parallel_size x data x pipeline); change one of them"
        )
    data_parallel = world // ranks
    batch, mini = config.data.train_batch_size, actor.ppo_mini_batch_size
    if batch % mini:
        yield (f"data.train_batch_size={batch} must be divisible by actor_rollout_ref.actor.ppo_mini_batch_size={mini}")
    if mini * rollout.n % data_parallel:
        yield (
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} x rollout.n={rollout.n} rollouts must be divisible "
            f"by the data-parallel size {data_parallel}"
        )
    adaptive = config.relift.schedule.kind == Schedule.ADAPTIVE  # the other kinds round what waits down
    if config.relift.enable and adaptive and config.relift.sft.batch_size % data_parallel:
        yield (
            f"relift.sft.batch_size={config.relift.sft.batch_size} must be divisible by the data-parallel size "
            f"{data_parallel} ({world} GPUs / {ranks} of a model replica)"
        )


def divisibility_problems(config: DictConfig, hf) -> Iterator[str]:
    megatron, rollout = config.actor_rollout_ref.actor.megatron, config.actor_rollout_ref.rollout
    groups = getattr(hf, "num_key_value_heads", None) or hf.num_attention_heads
    tp, pp = megatron.tensor_model_parallel_size, megatron.pipeline_model_parallel_size
    where = "actor_rollout_ref.actor.megatron.tensor_model_parallel_size"
    for name, size in (
        ("attention heads", hf.num_attention_heads),
        ("key-value heads", groups),
        ("hidden units of the feed-forward layer", hf.intermediate_size),
        ("entries of the vocabulary", hf.vocab_size),
    ):
        if size % tp:
            yield f"{where}={tp} must divide the model's {size} {name}; choose another"
    if hf.num_hidden_layers % pp:
        yield (
            f"actor_rollout_ref.actor.megatron.pipeline_model_parallel_size={pp} must divide the model's "
            f"{hf.num_hidden_layers} layers; choose another"
        )
    if hf.num_attention_heads % rollout.tensor_model_parallel_size:
        yield (
            f"actor_rollout_ref.rollout.tensor_model_parallel_size={rollout.tensor_model_parallel_size} must divide "
            f"the model's {hf.num_attention_heads} attention heads; choose another"
        )
