"""The `relift` group of the configuration as typed, checked dataclasses.

YAML carries the values (``config/relift.yaml``); this module says which exist and which are legal. Everything here is
checked before Ray starts.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from types import UnionType
from typing import Any, get_args


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type, or out of range. The message names it and says what is legal."""


class Overlong(StrEnum):
    """What happens to a demonstration with more tokens than ``relift.demonstrations.max_tokens``."""

    DROP = "drop"  # it is counted as rejected and not used
    ERROR = "error"  # the run stops and names the question


class Source(StrEnum):
    """Where the solution of a hardest question comes from."""

    DATASET = "dataset"  # the column of the data set
    TEACHER = "teacher"  # a server, see TeacherSettings
    DATASET_THEN_TEACHER = "dataset_then_teacher"  # the teacher where the data set has none that verifies


class Select(StrEnum):
    """Which of a step's questions give a demonstration."""

    HARDEST = "hardest"  # accuracy at most relift.trigger.max_accuracy
    OTHER = "other"  # as many as are hardest, drawn at random from those that are not (an ablation of the paper)
    ALL = "all"  # every question


class BufferOrder(StrEnum):
    """Which of the waiting demonstrations an update takes."""

    FIFO = "fifo"  # those that have waited longest
    LIFO = "lifo"  # those that came last
    RANDOM = "random"  # any, drawn with data.seed


class Schedule(StrEnum):
    """In which steps a supervised update is made."""

    ADAPTIVE = "adaptive"  # whenever M demonstrations wait
    EVERY_K = "every_k"  # in every relift.schedule.every-th step, with up to M of what waits
    ALWAYS = "always"  # in every step, with up to M of what waits
    NEVER = "never"  # demonstrations are collected and counted, nothing is trained on them


class SFTMode(StrEnum):
    """How the supervised update joins the step."""

    INTERLEAVE = "interleave"  # an optimizer step of its own, after the RL update
    SPLICE = "splice"  # in the gradient accumulation of the RL update's last mini-batch, with relift.sft.weight


class SFTOptimizer(StrEnum):
    """Whose moments the supervised update uses."""

    SHARED = "shared"  # the RL update's
    SEPARATE = "separate"  # its own; twice the optimizer's memory, less one copy of the weights


class LRSchedule(StrEnum):
    """Course of the supervised learning rate after its warm-up, counted in supervised updates."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


@dataclass(frozen=True)
class TriggerSettings:
    """Which questions give a demonstration."""

    max_accuracy: float = 0.0
    select: Select = Select.HARDEST

    def __post_init__(self):
        if not 0.0 <= self.max_accuracy < 1.0:
            raise SettingsError(
                f"relift.trigger.max_accuracy={self.max_accuracy} must be in [0, 1): 0 takes questions that every "
                "rollout failed"
            )


@dataclass(frozen=True)
class DemonstrationSettings:
    """Which demonstrations are good enough to train on."""

    source: Source = Source.DATASET
    column: str = "target"
    max_tokens: int = 8192
    overlong: Overlong = Overlong.DROP
    verify: bool = True

    def __post_init__(self):
        if self.max_tokens < 1:
            raise SettingsError(f"relift.demonstrations.max_tokens={self.max_tokens} must be at least 1")


@dataclass(frozen=True)
class TeacherSettings:
    """A server that answers hardest questions, by OpenAI's chat completions; see ``demonstrations/teacher``."""

    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None  # name of the environment variable that holds the key
    system_prompt: str | None = None  # None: the question's own messages as they are
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 8192
    samples: int = 4  # k: asked for one question until one verifies
    concurrency: int = 32  # requests in flight
    timeout: float = 600.0  # seconds, one request
    max_retries: int = 5  # of one request, with exponential backoff
    max_waiting: int = 1024  # questions asked and not answered; further ones are refused
    budget_tokens: int | None = None  # prompt and completion tokens of the whole run
    budget_cost: float | None = None  # in the unit of the prices
    price_input: float = 0.0  # per million prompt tokens
    price_output: float = 0.0  # per million completion tokens
    cache_dir: str | None = None

    def __post_init__(self):
        for name in ("max_tokens", "samples", "concurrency", "max_waiting"):
            if getattr(self, name) < 1:
                raise SettingsError(f"relift.teacher.{name}={getattr(self, name)} must be at least 1")
        for name in ("temperature", "max_retries", "price_input", "price_output"):
            if getattr(self, name) < 0:
                raise SettingsError(f"relift.teacher.{name}={getattr(self, name)} must not be negative")
        if not 0.0 < self.top_p <= 1.0:
            raise SettingsError(f"relift.teacher.top_p={self.top_p} must be in (0, 1]")
        if self.timeout <= 0.0:
            raise SettingsError(f"relift.teacher.timeout={self.timeout} must be positive (seconds)")
        for name in ("budget_tokens", "budget_cost"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SettingsError(f"relift.teacher.{name}={value} must be positive, or null for no limit")
        if self.budget_cost is not None and self.price_input == self.price_output == 0.0:
            raise SettingsError(
                f"relift.teacher.budget_cost={self.budget_cost} needs relift.teacher.price_input and price_output"
            )


@dataclass(frozen=True)
class BufferSettings:
    """How waiting demonstrations are kept."""

    order: BufferOrder = BufferOrder.FIFO
    capacity: int | None = None
    max_age_steps: int | None = None
    drop_solved: bool = False

    def __post_init__(self):
        for name in ("capacity", "max_age_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"relift.buffer.{name}={value} must be at least 1, or null for no limit")


@dataclass(frozen=True)
class ScheduleSettings:
    """In which steps a supervised update is made."""

    kind: Schedule = Schedule.ADAPTIVE
    every: int = 8
    max_updates_per_step: int = 1

    def __post_init__(self):
        for name in ("every", "max_updates_per_step"):
            if getattr(self, name) < 1:
                raise SettingsError(f"relift.schedule.{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class SFTSettings:
    """The supervised update. ``batch_size`` is the paper's M: demonstrations per update."""

    batch_size: int = 64
    mode: SFTMode = SFTMode.INTERLEAVE
    weight: float = 1.0
    optimizer: SFTOptimizer = SFTOptimizer.SHARED
    lr: float = 1e-6
    lr_warmup_updates: int = 0
    lr_schedule: LRSchedule = LRSchedule.CONSTANT
    lr_decay_updates: int | None = None
    min_lr_ratio: float = 0.0
    entropy_coeff: float = 1e-4
    clip_grad: float = 1.0
    epochs: int = 1
    max_token_len_per_gpu: int | None = None

    def __post_init__(self):
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise SettingsError(f"relift.sft.{name}={getattr(self, name)} must be at least 1")
        if not self.lr > 0.0:
            raise SettingsError(
                f"relift.sft.lr={self.lr} must be positive; to train without demonstrations set relift.enable=false"
            )
        if self.clip_grad <= 0.0:
            raise SettingsError(f"relift.sft.clip_grad={self.clip_grad} must be positive")
        if self.lr_warmup_updates < 0:
            raise SettingsError(f"relift.sft.lr_warmup_updates={self.lr_warmup_updates} must not be negative")
        if not 0.0 <= self.min_lr_ratio <= 1.0:
            raise SettingsError(f"relift.sft.min_lr_ratio={self.min_lr_ratio} must be in [0, 1]")
        decay = self.lr_decay_updates
        if self.lr_schedule is not LRSchedule.CONSTANT and (decay is None or decay <= self.lr_warmup_updates):
            raise SettingsError(
                f"relift.sft.lr_decay_updates={decay}: lr_schedule={self.lr_schedule} needs the supervised update at "
                "which the learning rate is at its lowest, after the warm-up"
            )
        if self.weight <= 0.0:
            raise SettingsError(f"relift.sft.weight={self.weight} must be positive")
        if self.mode is SFTMode.SPLICE:
            if self.optimizer is SFTOptimizer.SEPARATE:
                raise SettingsError(
                    "relift.sft.mode=splice makes one optimizer step for both losses: relift.sft.optimizer=separate "
                    "does not apply; use mode=interleave or optimizer=shared"
                )
            if self.epochs != 1:
                raise SettingsError(
                    f"relift.sft.epochs={self.epochs}: with mode=splice a demonstration joins one update; set it to 1"
                )


@dataclass(frozen=True)
class RolloutSettings:
    """How questions get their rollouts; see ``verl_relift/rollout``."""

    batched: bool = True
    workers: int = 0
    seeded: bool = True

    def __post_init__(self):
        if self.workers < 0:
            raise SettingsError(f"relift.rollout.workers={self.workers} must not be negative")


@dataclass(frozen=True)
class ReLIFTSettings:
    """The whole group. ``enable=False`` leaves verl's GRPO; ``supervised_only`` leaves the supervised updates."""

    enable: bool = True
    supervised_only: bool = False
    trigger: TriggerSettings = field(default_factory=TriggerSettings)
    demonstrations: DemonstrationSettings = field(default_factory=DemonstrationSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    buffer: BufferSettings = field(default_factory=BufferSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    sft: SFTSettings = field(default_factory=SFTSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    reuse_log_probs: bool = True

    def __post_init__(self):
        capacity = self.buffer.capacity
        if capacity is not None and capacity < self.sft.batch_size:
            raise SettingsError(
                f"relift.buffer.capacity={capacity} is smaller than relift.sft.batch_size={self.sft.batch_size}: "
                "an update would never be due"
            )
        if self.supervised_only and not self.enable:
            raise SettingsError("relift.supervised_only=true needs relift.enable=true: nothing would be trained")
        if self.supervised_only and (self.sft.mode is SFTMode.SPLICE or self.sft.optimizer is SFTOptimizer.SEPARATE):
            raise SettingsError(
                "relift.supervised_only=true makes no RL update: relift.sft.mode=splice and optimizer=separate do not "
                "apply; use interleave and shared"
            )
        if self.supervised_only and self.trigger.select is not Select.ALL:
            raise SettingsError(
                f"relift.trigger.select={self.trigger.select}: with relift.supervised_only=true nothing is sampled, so "
                "no question is known to be hardest; set it to all"
            )
        if self.demonstrations.source is not Source.DATASET and not (self.teacher.base_url and self.teacher.model):
            raise SettingsError(
                f"relift.demonstrations.source={self.demonstrations.source} needs relift.teacher.base_url and "
                "relift.teacher.model"
            )
        if self.sft.mode is SFTMode.SPLICE and self.schedule.max_updates_per_step != 1:
            raise SettingsError(
                f"relift.schedule.max_updates_per_step={self.schedule.max_updates_per_step}: with "
                "relift.sft.mode=splice there is one RL update to join; set it to 1 and raise relift.sft.batch_size"
            )

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> "ReLIFTSettings":
        """Build from a plain nested dict, as ``OmegaConf.to_container(config.relift, resolve=True)`` gives it.

        Raises:
            SettingsError: naming the first key that is unknown, of the wrong type or out of range.
        """
        return _build(cls, mapping, "relift")


def reuses_log_probs(config: Any) -> bool:
    """Whether an RL update takes the log-probs before it from its own pass, and none is made for them.

    They are the same numbers where a batch is one update: the weights have not changed. Not where something else wants
    them before the update.

    Args:
        config: the whole configuration.
    """
    actor, correction = config.actor_rollout_ref.actor, config.algorithm.get("rollout_correction") or {}
    one_update = actor.ppo_mini_batch_size == config.data.train_batch_size and actor.ppo_epochs == 1
    wanted_before = config.algorithm.use_kl_in_reward or any(
        correction.get(name) for name in ("rollout_is", "rollout_rs", "bypass_mode")
    )
    # An agent loop may make more rollouts of a question than n, which then are several updates.
    return config.relift.reuse_log_probs and config.relift.rollout.batched and one_update and not wanted_before


def _build(cls: type, mapping: dict[str, Any], path: str):
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(mapping) - set(known))
    if unknown:
        raise SettingsError(f"{path}.{unknown[0]} is not a setting; {path} has {', '.join(known)}")
    values = {}
    for name, value in mapping.items():
        values[name] = _convert(known[name].type, value, f"{path}.{name}")
    return cls(**values)


def _convert(kind: Any, value: Any, path: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise SettingsError(f"{path} must be a group of settings, not {value!r}")
        return _build(kind, value, path)
    if isinstance(kind, UnionType):
        return None if value is None else _convert(get_args(kind)[0], value, path)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        legal = [member.value for member in kind]
        if value not in legal:
            raise SettingsError(f"{path}={value!r} must be one of {', '.join(legal)}")
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise SettingsError(f"{path}={value!r} must be of type {kind.__name__}")
    return value
