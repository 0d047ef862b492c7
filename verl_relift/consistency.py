"""Settings that are legal one by one and cannot work together, or not on the platform.

Each check yields one line per problem: the keys, what is wrong, and the fix.
"""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .schema import shown

_ACTOR = "actor_rollout_ref.actor"
_ENGINE = f"{_ACTOR}.megatron"
_ROLLOUT = "actor_rollout_ref.rollout"

# key -> the values that work, and why.
_ON_CPU: dict[str, tuple[tuple[Any, ...], str]] = {
    f"{_ENGINE}.dtype": (("float32", "bfloat16"), "gloo and AdamW compute in these"),
    f"{_ENGINE}.distrib_optim_fully_reshardable_mem_efficient": ((True,), "the other way gathers by NCCL"),
    f"{_ACTOR}.optim.use_precision_aware_optimizer": ((False,), "it needs Transformer Engine"),
    f"{_ROLLOUT}.enforce_eager": ((True,), "there are no CUDA graphs"),
    f"{_ROLLOUT}.free_cache_engine": ((False,), "there is no device memory to free"),
    f"{_ROLLOUT}.enable_sleep_mode": ((False,), "there is no device memory to free"),
    f"{_ROLLOUT}.quantization": ((None,), "vLLM quantizes on GPUs"),
}
_ON_CUDA: dict[str, tuple[tuple[Any, ...], str]] = {
    f"{_ENGINE}.dtype": (("bfloat16", "float16"), "verl trains in these on GPUs"),
}
_CPU_BLOCK_SIZE = 128  # tokens of a block of vLLM's KV cache, unless block_size says


def platform_problems(config: DictConfig) -> Iterator[str]:
    """Yield what the platform cannot do."""
    platform = config.trainer.device
    for key, (values, why) in (_ON_CPU if platform == "cpu" else _ON_CUDA).items():
        value = OmegaConf.select(config, key)
        if value not in values:
            allowed = " or ".join(map(shown, values))
            yield f"{key}={shown(value)} must be {allowed} on platform={platform}: {why}"
    if platform == "cpu" and config.actor_rollout_ref.model.use_fused_kernels and not config.relift.speed_patches:
        yield (
            "actor_rollout_ref.model.use_fused_kernels=true needs relift.speed_patches=true on platform=cpu: verl's "
            "own kernels are for GPUs"
        )


def sampling_problems(config: DictConfig) -> Iterator[str]:
    """Yield what vLLM could not sample, or not store."""
    data, rollout = config.data, config.actor_rollout_ref.rollout
    validation = rollout.val_kwargs
    if not validation.do_sample and validation.temperature > 0:
        yield (
            f"{_ROLLOUT}.val_kwargs.do_sample=false with val_kwargs.temperature={validation.temperature}: greedy "
            "validation is temperature=0; set that, or do_sample=true"
        )
    elif validation.temperature == 0 and validation.n > 1:
        yield (
            f"{_ROLLOUT}.val_kwargs.n={validation.n} with val_kwargs.temperature={validation.temperature}: greedy "
            "answers are all the same, and vLLM refuses more than one; set val_kwargs.n=1 or a temperature above 0"
        )
    longest = data.max_prompt_length + data.max_response_length
    if rollout.max_model_len < longest:
        yield (
            f"{_ROLLOUT}.max_model_len={rollout.max_model_len} must be at least data.max_prompt_length + "
            f"data.max_response_length = {longest}; raise it, or lower one of those"
        )
    # Without chunks it must hold max_model_len, which is checked with the other settings of batches.
    if rollout.enable_chunked_prefill and rollout.max_num_batched_tokens < rollout.max_num_seqs:
        yield (
            f"{_ROLLOUT}.max_num_batched_tokens={rollout.max_num_batched_tokens} must be at least "
            f"max_num_seqs={rollout.max_num_seqs}; raise the one or lower the other"
        )
    if config.trainer.device == "cuda" and rollout.free_cache_engine and not rollout.get("enable_sleep_mode", True):
        yield f"{_ROLLOUT}.free_cache_engine=true needs {_ROLLOUT}.enable_sleep_mode=true"
    if rollout.prometheus.enable and rollout.disable_log_stats:
        yield f"{_ROLLOUT}.prometheus.enable=true needs {_ROLLOUT}.disable_log_stats=false"
    yield from _cache_problems(config)
    yield from _storage_problems(config)


def _cache_problems(config: DictConfig) -> Iterator[str]:
    rollout = config.actor_rollout_ref.rollout
    engine = rollout.engine_kwargs.vllm
    blocks, size = engine.get("num_gpu_blocks_override"), engine.get("block_size")
    if size is None and config.trainer.device == "cpu":
        size = _CPU_BLOCK_SIZE
    if isinstance(blocks, int) and isinstance(size, int) and blocks * size < rollout.max_model_len:
        yield (
            f"{_ROLLOUT}.engine_kwargs.vllm.num_gpu_blocks_override={blocks}: blocks of {size} tokens hold less than "
            f"one sequence of max_model_len={rollout.max_model_len}; raise it, or lower data.max_response_length"
        )


def _storage_problems(config: DictConfig) -> Iterator[str]:
    key, rollout = "transfer_queue.backend.SimpleStorage.total_storage_size", config.actor_rollout_ref.rollout
    storage = config.transfer_queue.backend.SimpleStorage
    rows = config.data.train_batch_size * rollout.n
    if storage.total_storage_size < rows:
        yield (
            f"{key}={storage.total_storage_size} must be at least {rows}, the rollouts of a step "
            "(data.train_batch_size x rollout.n); raise it"
        )


def schedule_problems(config: DictConfig) -> Iterator[str]:
    """Yield what the optimizer, its schedule and the policy loss cannot be made of."""
    actor, trainer = config.actor_rollout_ref.actor, config.trainer
    optim = actor.optim
    engine = actor.megatron
    if engine.virtual_pipeline_model_parallel_size is not None and engine.pipeline_model_parallel_size < 2:
        yield (
            f"{_ENGINE}.virtual_pipeline_model_parallel_size={engine.virtual_pipeline_model_parallel_size} splits "
            f"pipeline stages, but {_ENGINE}.pipeline_model_parallel_size=1; raise that, or leave it null"
        )
    for name in ("attention_dropout", "hidden_dropout"):
        if engine.override_transformer_config.get(name):
            yield (
                f"{_ENGINE}.override_transformer_config.{name}={engine.override_transformer_config[name]} must be 0: "
                "rollouts are sampled without dropout"
            )
    decay = optim.lr_decay_steps or trainer.total_training_steps
    if decay and (optim.lr_warmup_steps or 0) >= decay:
        yield (
            f"{_ACTOR}.optim.lr_warmup_steps={optim.lr_warmup_steps} must be below the length of the "
            f"schedule, {decay} steps; lower it, or raise trainer.total_training_steps or optim.lr_decay_steps"
        )
    for name in ("min_lr", "lr_warmup_init"):
        if optim[name] > optim.lr:
            yield f"{_ACTOR}.optim.{name}={optim[name]} must be at most {_ACTOR}.optim.lr={optim.lr}"
    if optim.lr_decay_style == "WSD" and optim.lr_wsd_decay_steps is None:
        yield f"{_ACTOR}.optim.lr_decay_style=WSD needs {_ACTOR}.optim.lr_wsd_decay_steps"
    if actor.policy_loss.loss_mode == "dro" and actor.policy_loss.dro_beta is None:
        yield f"{_ACTOR}.policy_loss.loss_mode=dro needs {_ACTOR}.policy_loss.dro_beta"
    if config.global_profiler.steps and not actor.profiler.enable:
        yield f"global_profiler.steps={list(config.global_profiler.steps)} needs {_ACTOR}.profiler.enable=true"
    correction, key = config.algorithm.rollout_correction, "algorithm.rollout_correction"
    if correction and not config.actor_rollout_ref.rollout.calculate_log_probs:
        for name in ("rollout_is", "rollout_rs", "bypass_mode"):
            if correction.get(name):
                yield f"{key}.{name}={shown(correction[name])} needs {_ROLLOUT}.calculate_log_probs=true"


def micro_batch_problems(config: DictConfig, data_parallel: int) -> Iterator[str]:
    """Yield where sequences do not fit micro-batches, or do not fill them.

    Args:
        data_parallel: model replicas that the training ranks form.
    """
    actor, rollout, ref = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.actor_rollout_ref.ref
    if rollout.log_prob_use_dynamic_bsz != actor.use_dynamic_bsz:
        yield (
            f"{_ROLLOUT}.log_prob_use_dynamic_bsz={shown(rollout.log_prob_use_dynamic_bsz)} must be that of "
            f"{_ACTOR}.use_dynamic_bsz"
        )
        return
    longest = config.data.max_prompt_length + config.data.max_response_length
    mini, batch = (
        questions * rollout.n // data_parallel
        for questions in (actor.ppo_mini_batch_size, config.data.train_batch_size)
    )
    passes = [
        (actor.use_dynamic_bsz, f"{_ACTOR}.ppo", mini),
        (rollout.log_prob_use_dynamic_bsz, f"{_ROLLOUT}.log_prob", batch),
    ]
    if actor.use_kl_loss or config.algorithm.use_kl_in_reward:
        passes.append((ref.log_prob_use_dynamic_bsz, "actor_rollout_ref.ref.log_prob", batch))
    for dynamic, prefix, rows in passes:
        key = f"{prefix}_max_token_len_per_gpu" if dynamic else f"{prefix}_micro_batch_size_per_gpu"
        value = OmegaConf.select(config, key)
        if dynamic and value * actor.megatron.context_parallel_size < longest:
            yield (
                f"{key}={value} must hold the longest sequence, data.max_prompt_length + data.max_response_length = "
                f"{longest} tokens; raise it"
            )
            return  # the other passes take theirs from it
        if not dynamic and (value is None or rows % value):
            yield (
                f"{key}={shown(value)} must divide the {rows} rollouts of a rank, as use_dynamic_bsz=false; set it to "
                f"{_nearest_divisors(rows, value or 1)}"
            )
            return


def _nearest_divisors(number: int, wanted: int) -> str:
    """Return the divisors of a number that are nearest to a wanted one, as text."""
    divisors = [size for size in range(1, number + 1) if number % size == 0]
    below = [size for size in divisors if size <= wanted][-1:]
    above = [size for size in divisors if size > wanted][:1]
    return " or ".join(map(str, below + above))
