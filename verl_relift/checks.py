"""What can be known to fail from the configuration alone; `plan` and `preflight` ask.

Each check yields one line per problem: the key, what is wrong, and the fix.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .methods import Method, Needs, read_method
from .rewards.problems import reward_problems
from .run import checkpoints
from .settings import ProgramSettings, SettingsError, Source, build

# The only one that shows groups before it evicts them.
SAMPLER = "pkg://verl_relift.rollout.sampler"


class ConfigurationError(ValueError):
    """The run cannot work as configured. One line per problem."""


def program_settings(config: DictConfig) -> ProgramSettings:
    """Return the group `relift`.

    Raises:
        SettingsError: naming the first key that is unknown, of the wrong type or out of range.
    """
    return build(ProgramSettings, OmegaConf.to_container(config.relift, resolve=True), "relift")


def chosen_method(config: DictConfig) -> tuple[type[Method], Any]:
    """Return the method of the group `method`, and its settings.

    Raises:
        SettingsError: naming the first key that is unknown, of the wrong type or out of range.
    """
    return read_method(OmegaConf.to_container(config.method, resolve=True))


def data_parallel_size(config: DictConfig) -> int:
    """Return how many model replicas the training ranks form."""
    megatron, trainer = config.actor_rollout_ref.actor.megatron, config.trainer
    ranks = megatron.tensor_model_parallel_size * megatron.pipeline_model_parallel_size * megatron.context_parallel_size
    return trainer.n_gpus_per_node * trainer.nnodes // ranks


def settings_problems(config: DictConfig) -> Iterator[str]:
    """Yield what is wrong with the settings of method and program, and with the keys of verl's that they rule out."""
    try:
        program = program_settings(config)
        method, settings = chosen_method(config)
    except SettingsError as error:
        yield str(error)
        return
    if method.stages(settings):
        return  # each stage is checked as a run of its own
    needs = method.needs(settings)
    yield from _engine_problems(config)
    if needs.rollouts and needs.demonstrations and config.actor_rollout_ref.rollout.n < 2:
        yield (
            f"actor_rollout_ref.rollout.n={config.actor_rollout_ref.rollout.n}: a group needs at least 2 rollouts; "
            "the paper uses 8"
        )
    yield from _filter_problems(config, needs, method)
    yield from reward_problems(config)
    yield from _rollout_problems(config, program, method)
    yield from method.problems(settings, config)
    splices = needs.supervised_rows > 0 and not needs.own_step
    transformer = config.actor_rollout_ref.actor.megatron.override_transformer_config
    if (splices or method.weighs_tokens()) and transformer.get("calculate_per_token_loss"):
        yield (
            "actor_rollout_ref.actor.megatron.override_transformer_config.calculate_per_token_loss=true divides all "
            f"gradients by one token count, but method={config.method.name} has one for each term of its loss; set it "
            "to false"
        )
    yield from _checkpoint_problems(config)
    if needs.demonstrations is not None and needs.demonstrations.source is not Source.DATASET:
        variable = settings.teacher.api_key_env
        if variable and not os.environ.get(variable):
            yield (
                f"method.teacher.api_key_env={variable}: the environment has no such variable; export the teacher's "
                "key under that name"
            )
    optim = config.actor_rollout_ref.actor.optim
    decay = optim.lr_decay_steps or config.trainer.total_training_steps
    if decay and optim.lr_warmup_steps >= decay:
        yield (
            f"actor_rollout_ref.actor.optim.lr_warmup_steps={optim.lr_warmup_steps} must be below the length of the "
            f"schedule, {decay} steps; lower it, or raise trainer.total_training_steps or optim.lr_decay_steps"
        )


def _filter_problems(config: DictConfig, needs: Needs, method: type[Method]) -> Iterator[str]:
    """Yield where groups that `algorithm.filter_groups` removes would be lost for the method."""
    if not config.algorithm.filter_groups.enable:
        return
    if method.retries():
        yield (
            "algorithm.filter_groups.enable=true evicts questions that every rollout fails before "
            f"method={config.method.name} asks them again; set it to false"
        )
    sampler = config.trainer.v1.sampler.custom_sampler.path
    if needs.failed_groups and sampler != SAMPLER:
        yield (
            f"trainer.v1.sampler.custom_sampler.path={sampler}: with algorithm.filter_groups.enable=true, "
            f"method={config.method.name} gets the questions that are evicted from {SAMPLER} only; leave the key out"
        )


def _engine_problems(config: DictConfig) -> Iterator[str]:
    """Yield what the trainer and the training engine cannot do."""
    v1 = config.trainer.v1
    if not config.trainer.use_v1:
        yield "trainer.use_v1=false: verl's former trainer is not supported; leave it true"
    if v1.trainer_mode != "sync":
        yield (
            f"trainer.v1.trainer_mode={v1.trainer_mode}: training and generation take turns in the same workers; set "
            "it to sync"
        )
    elif v1.sync.get("parameter_sync_step", 1) != 1:
        yield "trainer.v1.sync.parameter_sync_step: a step is one update of the weights in vLLM; remove the key"
    if config.actor_rollout_ref.actor.strategy != "megatron":
        yield (
            f"actor_rollout_ref.actor.strategy={config.actor_rollout_ref.actor.strategy}: only the Megatron engine "
            "is supported; leave model_engine=megatron"
        )
    if config.algorithm.adv_estimator == "gae" or config.critic.enable:
        yield (
            f"algorithm.adv_estimator={config.algorithm.adv_estimator}, critic.enable={config.critic.enable}: a critic "
            "is not supported; set algorithm.adv_estimator=grpo and critic.enable=false"
        )
    if config.trainer.critic_warmup:
        yield f"trainer.critic_warmup={config.trainer.critic_warmup}: there is no critic to warm up; set it to 0"
    if not config.actor_rollout_ref.actor.megatron.use_distributed_optimizer:
        yield (
            "actor_rollout_ref.actor.megatron.use_distributed_optimizer=false: verl 0.9.1 cannot send weights to vLLM "
            "without the distributed optimizer's buffers; leave it true"
        )


def _rollout_problems(config: DictConfig, program: ProgramSettings, method: type[Method]) -> Iterator[str]:
    """Yield what the chosen way of generating cannot do."""
    rollout = config.actor_rollout_ref.rollout
    if not program.rollout.batched:
        if config.reward.num_workers < 1:
            yield "relift.rollout.batched=false needs verl's reward workers: set reward.num_workers=8"
        if method.guides_generation():
            yield (
                f"relift.rollout.batched=false: method={config.method.name} guides what is sampled, which verl's agent "
                "loop does not support; set it to true"
            )
        return
    if not config.trainer.v1.sampler.custom_sampler.path:
        yield (
            "trainer.v1.sampler.custom_sampler.path=null: verl's own sampler would wait forever for a rollout that "
            "failed; leave verl_relift's, or set relift.rollout.batched=false"
        )
    manager = rollout.agent.get("agent_loop_manager_class")
    if manager:
        yield (
            f"actor_rollout_ref.rollout.agent.agent_loop_manager_class={manager} has no effect on rollouts in batches; "
            "set relift.rollout.batched=false, or remove it"
        )
    if config.trainer.device == "cpu" and program.rollout.seeded and rollout.enable_chunked_prefill:
        yield (
            "actor_rollout_ref.rollout.enable_chunked_prefill=true with relift.rollout.seeded=true: vLLM rewinds "
            "a request's random generator after a partial prefill, which a CPU generator cannot do; set one false"
        )
    if not rollout.enable_chunked_prefill and rollout.max_num_batched_tokens < rollout.max_model_len:
        yield (
            f"actor_rollout_ref.rollout.max_num_batched_tokens={rollout.max_num_batched_tokens} must be at least "
            f"max_model_len={rollout.max_model_len} while enable_chunked_prefill=false; raise it"
        )
    for key, enabled in (
        ("actor_rollout_ref.rollout.multi_turn.enable", rollout.multi_turn.enable),
        ("reward.reward_model.enable", config.reward.reward_model.enable),
        ("distillation.enabled", config.distillation.enabled),
    ):
        if enabled:
            yield f"{key}=true needs verl's agent loop: set relift.rollout.batched=false and reward.num_workers=8"


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
        folder = None
        if trainer.resume_mode == "auto":
            folder = checkpoints.latest(Path(trainer.default_local_dir))
        elif trainer.resume_mode == "resume_path":
            folder = Path(trainer.resume_from_path or "")
            checkpoints.step_of(folder)
        if folder is not None:
            checkpoints.require_method(folder, config.method.name)
    except checkpoints.CheckpointError as error:
        yield str(error)


def batch_problems(config: DictConfig) -> Iterator[str]:
    """Yield what cannot be divided among the ranks."""
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
    data_parallel = data_parallel_size(config)
    batch, mini = config.data.train_batch_size, actor.ppo_mini_batch_size
    if batch % mini:
        yield (f"data.train_batch_size={batch} must be divisible by actor_rollout_ref.actor.ppo_mini_batch_size={mini}")
    if mini * rollout.n % data_parallel:
        yield (
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} x rollout.n={rollout.n} rollouts must be divisible "
            f"by the data-parallel size {data_parallel}"
        )
    try:
        method, settings = chosen_method(config)
    except SettingsError:
        return  # settings_problems says it
    needs = method.needs(settings)
    if 0 < needs.supervised_rows < data_parallel:
        yield (
            f"method.sft.batch_size={needs.supervised_rows} is smaller than the data-parallel size {data_parallel}: no "
            "update would ever be due; raise it"
        )
    elif needs.exact_rows and needs.supervised_rows % data_parallel:
        yield (
            f"method.sft.batch_size={needs.supervised_rows} must be divisible by the data-parallel size "
            f"{data_parallel} ({world} GPUs / {ranks} of a model replica)"
        )


def divisibility_problems(config: DictConfig, hf) -> Iterator[str]:
    """Yield what of a model tensor and pipeline parallelism cannot divide; `hf` is its Hugging Face configuration."""
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
