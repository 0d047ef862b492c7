"""`actor_rollout_ref.actor` and `.ref`: the RL update, its optimizer, and the Megatron engine."""

from .rules import Choice, Condition, Each, Flag, Number, Only, Rule, Unchecked, Whole, either, under, when

_DYNAMIC = when("actor_rollout_ref.actor.use_dynamic_bsz", True)
_FIXED_SIZE = when("actor_rollout_ref.actor.use_dynamic_bsz", False)
_REFERENCE = either(when("actor_rollout_ref.actor.use_kl_loss", True), when("algorithm.use_kl_in_reward", True))
_KL_LOSS = when("actor_rollout_ref.actor.use_kl_loss", True)
_PRECISION_AWARE = when("actor_rollout_ref.actor.optim.use_precision_aware_optimizer", True)
_WARMUP = Condition(
    "a warm-up (lr_warmup_steps or lr_warmup_steps_ratio)",
    lambda value: any(
        (value(f"actor_rollout_ref.actor.optim.{key}") or 0) > 0 for key in ("lr_warmup_steps", "lr_warmup_steps_ratio")
    ),
)
_WSD = when("actor_rollout_ref.actor.optim.lr_decay_style", "WSD")

KL_ESTIMATORS = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
_DTYPES = ("fp32", "bf16")

# verl's policy losses; what each reads beside the log-probs and advantages.
_CLIPS = ("vanilla", "dppo_tv", "dppo_kl", "gspo", "clip_cov", "geo_mean", "cispo")
LOSS_MODES = (*_CLIPS, "sapo", "gpg", "kl_cov", "dro")
_OVER_SEQUENCES = ("geo_mean", "sapo")  # verl aggregates them in one way, whatever loss_agg_mode says


def _with_loss(*modes: str):
    return when("actor_rollout_ref.actor.policy_loss.loss_mode", *modes)


_OPTIMIZER = {
    "lr": Number(low=0),
    "lr_warmup_steps": Whole(0, null=True, also=(-1,)),
    "lr_warmup_steps_ratio": Number(
        low=0, below=1, when=when("actor_rollout_ref.actor.optim.lr_warmup_steps", -1, 0, None)
    ),
    "lr_warmup_init": Number(low=0, when=_WARMUP),
    "lr_decay_steps": Whole(1, null=True),
    "lr_decay_style": Choice(("constant", "linear", "cosine", "inverse-square-root", "WSD")),
    "lr_wsd_decay_style": Choice(("exponential", "linear", "cosine", "minus_sqrt"), when=_WSD),
    "lr_wsd_decay_steps": Whole(1, null=True, when=_WSD),
    "min_lr": Number(
        low=0,
        when=when("actor_rollout_ref.actor.optim.lr_decay_style", "linear", "cosine", "inverse-square-root", "WSD"),
    ),
    "weight_decay": Number(low=0),
    "betas": Each(Number(low=0, below=1), length=2),
    "clip_grad": Number(low=0),
    "optimizer": Only("adam", "weights, checkpoints and the supervised update are made for AdamW"),
    "use_checkpoint_opt_param_scheduler": Flag(),
    "use_precision_aware_optimizer": Flag(),
    "main_grads_dtype": Choice(_DTYPES, when=_PRECISION_AWARE),
    "exp_avg_dtype": Choice(_DTYPES, when=_PRECISION_AWARE),
    "exp_avg_sq_dtype": Choice(_DTYPES, when=_PRECISION_AWARE),
    "override_optimizer_config": Unchecked(),  # `engines` asks Megatron
}

_ENGINE = {
    "param_offload": Flag(),
    "optimizer_offload": Flag(),
    "tensor_model_parallel_size": Whole(1),
    "pipeline_model_parallel_size": Whole(1),
    "virtual_pipeline_model_parallel_size": Whole(2, null=True),
    "context_parallel_size": Whole(1),
    "expert_model_parallel_size": Only(1, "models with experts cannot be trained"),
    "sequence_parallel": Only(True, "mbridge turns it on wherever there is tensor parallelism"),
    "use_distributed_optimizer": Only(True, "verl sends weights to vLLM from the distributed optimizer's buffers"),
    "dynamic_context_parallel": Only(False, "demonstrations are not shared out so"),
    "use_dist_checkpointing": Only(False, "weights are loaded from a Hugging Face folder"),
    "dist_ckpt_optim_fully_reshardable": Flag(),
    "distrib_optim_fully_reshardable_mem_efficient": Flag(),
    "seed": Whole(0),
    "override_ddp_config": Unchecked(),
    "override_transformer_config": Unchecked(),
    "use_mbridge": Only(True, "weights are loaded and sent through mbridge"),
    "vanilla_mbridge": Only(True, "Megatron-Bridge is not supported"),
    "pad_to_length": Flag(),
    "pad_to_length_bucket": Whole(1, when=when("actor_rollout_ref.actor.megatron.pad_to_length", True)),
    "use_megatron_fsdp": Only(False, "the training engine shards by the distributed optimizer"),
    "forward_only": Only(False, "the actor is trained"),
    "dtype": Choice(("bfloat16", "float16", "float32")),
    "router_replay": {"mode": Only("disabled", "routes are not recorded")},
    "qat": {"enable": Only(False, "quantization-aware training is not supported")},
}

_ACTOR: dict[str, Rule | dict] = {
    "optim": _OPTIMIZER,
    "megatron": _ENGINE,
    "strategy": Only("megatron", "the training engine is Megatron-Core"),
    "ppo_mini_batch_size": Whole(1),
    "ppo_micro_batch_size": Only(None, "set ppo_micro_batch_size_per_gpu, with use_dynamic_bsz=false"),
    "ppo_micro_batch_size_per_gpu": Whole(1, null=True, when=_FIXED_SIZE),
    "use_dynamic_bsz": Flag(),
    "ppo_max_token_len_per_gpu": Whole(1),
    "ppo_epochs": Whole(1),
    "shuffle": Flag(),
    "data_loader_seed": Whole(0, when=when("actor_rollout_ref.actor.shuffle", True)),
    "clip_ratio": Number(
        above=0,
        when=either(
            when("actor_rollout_ref.actor.clip_ratio_low", None), when("actor_rollout_ref.actor.clip_ratio_high", None)
        ),
    ),
    "clip_ratio_low": Number(low=0, null=True, when=_with_loss(*_CLIPS)),
    "clip_ratio_high": Number(low=0, null=True, when=_with_loss(*_CLIPS)),
    "clip_ratio_c": Number(above=1, when=_with_loss("vanilla", "dppo_tv", "dppo_kl")),
    "tau_pos": Number(above=0, when=_with_loss("sapo")),
    "tau_neg": Number(above=0, when=_with_loss("sapo")),
    "policy_loss": {
        "loss_mode": Choice(LOSS_MODES),
        "clip_cov_ratio": Number(low=0, high=1, when=_with_loss("clip_cov")),
        "clip_cov_lb": Number(when=_with_loss("clip_cov")),
        "clip_cov_ub": Number(when=_with_loss("clip_cov")),
        "kl_cov_ratio": Number(low=0, high=1, when=_with_loss("kl_cov")),
        "ppo_kl_coef": Number(low=0, when=_with_loss("kl_cov")),
        "dro_beta": Number(above=0, null=True, when=_with_loss("dro")),
    },
    "loss_agg_mode": Choice(
        ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"),
        when=_with_loss(*(mode for mode in LOSS_MODES if mode not in _OVER_SEQUENCES)),
    ),
    "loss_scale_factor": Whole(
        1, null=True, when=when("actor_rollout_ref.actor.loss_agg_mode", "seq-mean-token-sum-norm")
    ),
    "entropy_coeff": Number(),
    "calculate_entropy": Flag(),
    "entropy_from_logits_with_chunking": Flag(),
    "entropy_from_logits_chunk_size": Whole(
        1, when=when("actor_rollout_ref.actor.entropy_from_logits_with_chunking", True)
    ),
    "use_kl_loss": Flag(),
    "kl_loss_coef": Number(low=0, when=_KL_LOSS),
    "kl_loss_type": Choice((*KL_ESTIMATORS, *(f"{name}+" for name in KL_ESTIMATORS)), when=_KL_LOSS),
    "checkpoint": {
        "save_contents": Each(Choice(("model", "optimizer", "extra", "hf_model")), containing=("model", "optimizer")),
        "load_contents": Only(["model", "optimizer"], "what a run needs to resume; the generators are in relift/"),
        "async_save": Only(False, "a checkpoint would be named before it is whole"),
        "mbridge_config": Unchecked(),
    },
    "profiler": Unchecked(when=when("actor_rollout_ref.actor.profiler.enable", True)),
}

_REF = {
    "log_prob_micro_batch_size_per_gpu": Whole(1, null=True, when=_REFERENCE),
    "log_prob_use_dynamic_bsz": Flag(when=_REFERENCE),
    "log_prob_max_token_len_per_gpu": Whole(1, when=_REFERENCE),
    "megatron": {
        "param_offload": Flag(when=_REFERENCE),
        "dtype": Choice(("bfloat16", "float16", "float32"), when=_REFERENCE),
        "override_transformer_config": Unchecked(when=_REFERENCE),
        "vanilla_mbridge": Only(True, "Megatron-Bridge is not supported"),
        "use_mbridge": Only(True, "weights are loaded through mbridge"),
    },
}

KEYS = under("actor_rollout_ref", {"actor": _ACTOR, "ref": _REF})
