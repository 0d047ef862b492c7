"""Names the settings that change memory or work in a way that the arithmetic does not follow."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"

# What goes to Megatron-Core and vLLM as it is. The names of a group here are counted, or take no memory.
_COUNTED = {
    f"{_ACTOR}.optim.override_optimizer_config": ("adam_*", "decoupled_weight_decay", "loss_scale", "log_num_zeros*"),
    f"{_ACTOR}.megatron.override_ddp_config": ("overlap_*", "bucket_size", "check_for_*", "average_in_collective"),
    f"{_ACTOR}.megatron.override_transformer_config": (
        "recompute_*",
        "attention_backend",
        "bias_activation_fusion",
        "sequence_parallel",
        "calculate_per_token_loss",
        "deterministic_mode",
        "init_method_std",
        "moe_*",
    ),
    f"{_ROLLOUT}.engine_kwargs.vllm": ("num_gpu_blocks_override", "seed", "*log*", "*scheduling*", "attention_*"),
}


def uncounted(config: DictConfig) -> list[str]:
    """Return the settings that the figures of a plan are without, as `key=value`, some with a remark.

    Args:
        config: the composed configuration.
    """
    found = [f"{key}={_written(value)}" for key, value in _single(config) if value]
    for group, counted in _COUNTED.items():
        values = OmegaConf.to_container(OmegaConf.select(config, group) or OmegaConf.create({}), resolve=True)
        for name, value in values.items():
            # A flag is usually off; gradients are reduced in fp32, and which fusions are on depends on Megatron.
            usual = value is None or (value is (name == "grad_reduce_in_fp32") and not name.endswith("fusion"))
            if not usual and not any(fnmatchcase(name, pattern) for pattern in counted):
                found.append(f"{group}.{name}={_written(value)}{_remark(name, values)}")
    return found


def _single(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the keys outside of the groups, each with its value if the arithmetic does not follow it."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    key = f"{_ACTOR}.megatron.virtual_pipeline_model_parallel_size"
    yield key, actor.megatron.virtual_pipeline_model_parallel_size
    # Its gradients are counted in their type; its moments and the master copy as fp32.
    yield f"{_ACTOR}.optim.use_precision_aware_optimizer", actor.optim.get("use_precision_aware_optimizer")
    yield f"{_ACTOR}.use_dynamic_bsz", "" if actor.use_dynamic_bsz else "false"
    yield f"{_ROLLOUT}.quantization", rollout.get("quantization")


def _remark(name: str, group: Mapping[str, Any]) -> str:
    """Return what else to know of a setting, with a space before it; empty: nothing."""
    if name == "optimizer_cpu_offload" and not group.get("optimizer_offload_fraction"):
        return " (Megatron moves optimizer_offload_fraction of the optimizer, by default 0: nothing)"
    return ""


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
