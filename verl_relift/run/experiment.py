"""Whether a checkpoint belongs to the experiment that a command asks for.

A checkpoint carries a record of the settings that made it. When a run resumes, each setting that has another value now
is sorted by `_FREE`, a list of what may change without making another experiment of it. Everything else may not, unless
`relift.resume.accept_changes` names it: a key that nobody thought of is refused rather than mixed in silently.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import folder as runfolder
from .redact import redact

RECORD = Path("relift") / "run.json"  # in a checkpoint's folder
ACCEPT = "relift.resume.accept_changes"
_TRAIN_FILES = "data.train_files"
_RESHARDABLE = "actor_rollout_ref.actor.megatron.dist_ckpt_optim_fully_reshardable"
_TAIL_BYTES = 1 << 20
_SHOWN = 8  # changes of one message


class Free(StrEnum):
    """Why a setting may have another value after a resume."""

    LENGTH = "the length of training, and its learning rates"  # the new values hold from the resumed step on
    RECORDS = "what is written, how often, and where"
    VALIDATION = "what is validated"
    DEVICES = "the devices and how the model is divided among them"
    SPEED = "how fast the same numbers come"


_MODEL, _ACTOR, _ROLLOUT = "actor_rollout_ref.model", "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
_MEGATRON = "actor_rollout_ref.*.megatron"  # of the actor and of the reference policy
_DIVISION = (
    f"{_MEGATRON}.*_parallel_size",
    f"{_MEGATRON}.sequence_parallel",
    f"{_MEGATRON}.dynamic_context_parallel",
    f"{_MEGATRON}.max_seqlen_per_dp_cp_rank",
)
_FREE: dict[Free, tuple[str, ...]] = {
    Free.LENGTH: (
        "trainer.total_training_steps",
        "trainer.total_epochs",
        f"{_ACTOR}.optim.lr",
        f"{_ACTOR}.optim.lr_*",
        f"{_ACTOR}.optim.min_lr",
        f"{_ACTOR}.optim.total_training_steps",
        "method.sft.lr",
        "method.sft.lr_*",
        "method.sft.min_lr_ratio",
        "method.teacher.budget_*",
        "method.teacher.price_*",
    ),
    Free.RECORDS: (
        "trainer.project_name",
        "trainer.experiment_name",
        "trainer.logger",
        "trainer.wandb_proxy",
        "trainer.default_*_dir",
        "trainer.rollout_data_dir",
        "relift.gradient_shares_every",
        "trainer.save_freq",
        "trainer.max_*_ckpt_to_keep",
        "trainer.checkpoint_callback_class*",
        "trainer.esi_redundant_time",
        "trainer.del_local_ckpt_after_load",
        "trainer.resume_*",
        "relift.resume.*",
        f"{_ACTOR}.checkpoint.save_contents",
        f"{_ROLLOUT}.trace.*",
        f"{_ROLLOUT}.prometheus.*",
        f"{_ROLLOUT}.disable_log_stats",
        "transfer_queue.metrics.*",
        "global_profiler.*",
        "*.profiler.*",
    ),
    Free.VALIDATION: (
        "data.val_*",
        "data.validation_shuffle",
        f"{_ROLLOUT}.val_kwargs.*",
        "trainer.test_freq",
        "trainer.val_*",
        "trainer.validation_data_dir",
        "trainer.log_val_generations",
    ),
    Free.DEVICES: (
        *_DIVISION,
        f"{_ROLLOUT}.*_parallel_size",
        f"{_ROLLOUT}.nnodes",
        f"{_ROLLOUT}.n_gpus_per_node",
        "trainer.nnodes",
        "trainer.n_gpus_per_node",
        "trainer.ray_wait_register_center_timeout",
        "actor_rollout_ref.nccl_timeout",
        "ray_kwargs.*",
        "critic.*",  # there is none
    ),
    Free.SPEED: (
        "relift.speed_patches",
        "relift.reuse_log_probs",
        "relift.threads",
        "relift.rollout.workers",
        "*_micro_batch_size",
        "*_micro_batch_size_per_gpu",
        "*_max_token_len_per_gpu",
        "method.sft.max_token_len_per_gpu",
        f"{_ACTOR}.use_dynamic_bsz",
        "actor_rollout_ref.ref.log_prob_use_dynamic_bsz",
        f"{_ROLLOUT}.log_prob_use_dynamic_bsz",
        f"{_MEGATRON}.*_offload",
        f"{_MEGATRON}.distrib_optim_fully_reshardable_mem_efficient",
        f"{_MEGATRON}.override_transformer_config.recompute_*",
        f"{_MEGATRON}.override_transformer_config.attention_backend",
        f"{_MEGATRON}.override_ddp_config.overlap_*",
        f"{_MEGATRON}.override_ddp_config.bucket_size",
        "*.entropy_from_logits_*",
        "*.use_torch_compile",
        "*.use_shm",
        f"{_MODEL}.enable_gradient_checkpointing",
        f"{_MODEL}.enable_activation_offload",
        f"{_MODEL}.use_fused_kernels",
        f"{_ROLLOUT}.gpu_memory_utilization",
        f"{_ROLLOUT}.enforce_eager",
        f"{_ROLLOUT}.cudagraph_capture_sizes",
        f"{_ROLLOUT}.free_cache_engine",
        f"{_ROLLOUT}.enable_sleep_mode",
        f"{_ROLLOUT}.enable_chunked_prefill",
        f"{_ROLLOUT}.enable_prefix_caching",
        f"{_ROLLOUT}.max_num_*",
        f"{_ROLLOUT}.multi_stage_wake_up",
        f"{_ROLLOUT}.layered_summon",
        f"{_ROLLOUT}.engine_kwargs.vllm.num_gpu_blocks_override",
        f"{_ROLLOUT}.checkpoint_engine.*",
        f"{_ROLLOUT}.agent.num_workers",
        "data.dataloader_num_workers",
        "data.filter_overlong_prompts_workers",
        "reward.num_workers",
        "trainer.balance_batch",
        "transfer_queue.*",
        "method.teacher.base_url",
        "method.teacher.api_key_env",
        "method.teacher.cache_dir",
        "method.teacher.concurrency",
        "method.teacher.max_retries",
        "method.teacher.max_waiting",
        "method.teacher.timeout",
    ),
}


def reason_to_change(key: str) -> Free | None:
    """Return why a key may have another value after a resume; None if that makes another experiment."""
    for reason, patterns in _FREE.items():
        if any(fnmatchcase(key, pattern) for pattern in patterns):
            return reason
    return None


@dataclass(frozen=True)
class Change:
    """A setting that has another value than when the checkpoint was made."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}={_shown(self.now)} (was {_shown(self.before)})"


@dataclass(frozen=True)
class Record:
    """What a checkpoint says about the run that made it."""

    settings: dict[str, Any]  # by dotted key, without secrets
    train_files: list[str]  # fingerprints, in the order of data.train_files
    steps_per_epoch: int | None = None

    @classmethod
    def of(cls, config: DictConfig, steps_per_epoch: int | None = None) -> "Record":
        """Make the record of a run that is configured so."""
        return cls(_settings(config), [_fingerprint(file) for file in _train_files(config)], steps_per_epoch)

    @classmethod
    def read(cls, checkpoint: Path) -> "Record | None":
        """Read the record in a checkpoint's folder; that of its run where it has none. None if neither exists."""
        path, config = checkpoint / RECORD, checkpoint.parent / runfolder.CONFIG
        if path.exists():
            return cls(**json.loads(path.read_text()))
        return cls(_settings(OmegaConf.load(config)), []) if config.exists() else None

    def write(self, checkpoint: Path) -> None:
        """Write the record into a checkpoint's folder."""
        runfolder.write_atomically(checkpoint / RECORD, json.dumps(vars(self)))


def changes(record: Record, config: DictConfig) -> list[Change]:
    """Find the settings that differ, without those that only follow from others that differ.

    Args:
        record: of the checkpoint.
        config: of the run that would resume from it, with its interpolations.
    """
    before, now = record.settings, _settings(config)
    # What is not there, and what is null, is not set.
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    own = [key for key in keys if not _is_derived(config, key)]
    follows = _with(config, {key: before.get(key) for key in own}) if own else now
    keys = [key for key in keys if key in own or follows.get(key) != before.get(key)]
    found = [Change(key, before.get(key), now.get(key)) for key in keys]
    fingerprints = [_fingerprint(file) for file in _train_files(config)]
    if record.train_files and record.train_files == fingerprints:
        return [change for change in found if change.key != _TRAIN_FILES]  # the same data in another place
    if record.train_files and _TRAIN_FILES not in (change.key for change in found):
        found.append(Change(_TRAIN_FILES, "other contents", now[_TRAIN_FILES]))
    return found


def refused(record: Record, found: Sequence[Change], accepted: Sequence[str]) -> list[Change]:
    """Return those changes that make another experiment, or that the checkpoint can't follow, and are not accepted.

    Args:
        record: of the checkpoint.
        found: what `changes` has found.
        accepted: keys; each stands for all below it too.
    """
    divided = _DIVISION if record.settings.get(_RESHARDABLE) is False else ()
    return [
        change
        for change in found
        if (reason_to_change(change.key) is None or any(fnmatchcase(change.key, one) for one in divided))
        and not any(change.key == key or change.key.startswith(f"{key}.") for key in accepted)
    ]


def refusal(checkpoint: Path, found: Sequence[Change]) -> str:
    """Say in one line why a run does not resume."""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    keys = ",".join(change.key for change in found)
    return (
        f"{checkpoint} is of another experiment: {', '.join(map(str, found[:_SHOWN]))}{more}; choose another "
        f"trainer.default_local_dir, start over with trainer.resume_mode=disable, or continue nevertheless with "
        f"'{ACCEPT}=[{keys}]'"
    )


def total_steps(config: DictConfig, record: Record | None) -> int | None:
    """Return after how many steps the run ends; None if that depends on data that is not read yet."""
    trainer = config.trainer
    limits = [trainer.total_training_steps] if trainer.total_training_steps else []
    if record is not None and record.steps_per_epoch:
        limits.append(trainer.total_epochs * record.steps_per_epoch)
    return min(limits, default=None)


def _settings(config: DictConfig) -> dict[str, Any]:
    """The resolved values by dotted key. A list is one value."""
    plain = redact(OmegaConf.to_container(config, resolve=True, throw_on_missing=False))
    return dict(_flat(json.loads(json.dumps(plain, default=str)), ""))


def _with(config: DictConfig, values: dict[str, Any]) -> dict[str, Any]:
    """The settings if keys had other values; none if they can't be resolved then."""
    other = config.copy()
    OmegaConf.set_struct(other, False)
    try:
        for key, value in values.items():
            OmegaConf.update(other, key, value, merge=False)
        return _settings(other)
    except OmegaConfBaseException:
        return {}


def _flat(group: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in group.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_derived(config: DictConfig, key: str) -> bool:
    """Whether the key's value, or that of a group above it, is an interpolation."""
    group = config
    for name in key.split("."):
        if not isinstance(group, DictConfig) or name not in group:
            return False
        if OmegaConf.is_interpolation(group, name):
            return True
        group = group[name] if not OmegaConf.is_missing(group, name) else None
    return False


def _train_files(config: DictConfig) -> list[Path]:
    files = OmegaConf.to_container(config.data, resolve=True)["train_files"]
    files = files if isinstance(files, list) else [files] if files else []
    return [path for path in (Path(str(file)).expanduser() for file in files) if path.is_file()]


def _fingerprint(file: Path) -> str:
    """A hash of a file's size and of its end, where parquet keeps the sizes and statistics of all columns."""
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - _TAIL_BYTES))
        return hashlib.sha256(f"{size} ".encode() + stream.read()).hexdigest()


def _shown(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value) if isinstance(value, list | bool) else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
