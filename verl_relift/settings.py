"""Settings as typed, checked dataclasses, and how they are built from a composed configuration.

YAML carries the values; a dataclass says which settings exist and which values are legal. A method has settings of its
own (`method.*`, see `verl_relift/methods`); here are those that several methods share, and the program's own group
`relift`. Everything is checked before Ray starts.
"""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type, or out of range. The message names it and says what is legal."""


class Overlong(StrEnum):
    """What happens to a demonstration with more tokens than `method.demonstrations.max_tokens`."""

    DROP = "drop"  # it is counted as rejected and not used
    ERROR = "error"  # the run stops and names the question


class Source(StrEnum):
    """Where the solution of a hardest question comes from."""

    DATASET = "dataset"  # the column of the data set
    TEACHER = "teacher"  # a server, see TeacherSettings
    DATASET_THEN_TEACHER = "dataset_then_teacher"  # the teacher where the data set has none that verifies
    PRIVILEGED = "privileged"  # the policy, which is shown the data set's solution

    @property
    def asks_teacher(self) -> bool:
        """Whether a server is asked."""
        return self in (Source.TEACHER, Source.DATASET_THEN_TEACHER)

    @property
    def needs_dataset(self) -> bool:
        """Whether nothing is trained on without solutions in the data set."""
        return self in (Source.DATASET, Source.PRIVILEGED)


class BufferOrder(StrEnum):
    """Which of the waiting demonstrations an update takes."""

    FIFO = "fifo"  # those that have waited longest
    LIFO = "lifo"  # those that came last
    RANDOM = "random"  # any, drawn with data.seed


@dataclass(frozen=True)
class DemonstrationSettings:
    """Which demonstrations are good enough to train on."""

    source: Source = Source.DATASET
    column: str = "target"
    max_tokens: int = 8192
    overlong: Overlong = Overlong.DROP
    verify: bool = True

    def __post_init__(self):
        if not self.column.strip():
            raise SettingsError("method.demonstrations.column must name a column of the data set")
        if self.max_tokens < 1:
            raise SettingsError(f"method.demonstrations.max_tokens={self.max_tokens} must be at least 1")


@dataclass(frozen=True)
class SolutionSettings(DemonstrationSettings):
    """Which solutions of the data set are good enough to guide the policy."""

    source: ClassVar[Source] = Source.DATASET


@dataclass(frozen=True)
class PrivilegedSettings:
    """Rollouts with the solution in the question; see `demonstrations/privileged.py`."""

    fraction: float = 1.0  # of the solution that is shown
    samples: int | None = None  # rollouts of a question; None: as many as without the solution
    traces: int = 1  # right ones of a question that are kept, at most
    template: str = (
        "{question}\n\nHere is a reference solution:\n{hint}\n\nSolve the problem yourself, in your own words, as if "
        "you had not seen it."
    )

    def __post_init__(self):
        if not 0.0 < self.fraction <= 1.0:
            raise SettingsError(f"method.privileged.fraction={self.fraction} must be in (0, 1]")
        for name in ("samples", "traces"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"method.privileged.{name}={value} must be at least 1")
        require_places("method.privileged.template", self.template)


@dataclass(frozen=True)
class TeacherSettings:
    """A server that answers hardest questions, by OpenAI's chat completions; see `demonstrations/teacher`."""

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
                raise SettingsError(f"method.teacher.{name}={getattr(self, name)} must be at least 1")
        for name in ("temperature", "max_retries", "price_input", "price_output"):
            if getattr(self, name) < 0:
                raise SettingsError(f"method.teacher.{name}={getattr(self, name)} must not be negative")
        if not 0.0 < self.top_p <= 1.0:
            raise SettingsError(f"method.teacher.top_p={self.top_p} must be in (0, 1]")
        if self.timeout <= 0.0:
            raise SettingsError(f"method.teacher.timeout={self.timeout} must be positive (seconds)")
        for name in ("budget_tokens", "budget_cost"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SettingsError(f"method.teacher.{name}={value} must be positive, or null for no limit")
        if self.budget_cost is not None and self.price_input == self.price_output == 0.0:
            raise SettingsError(
                f"method.teacher.budget_cost={self.budget_cost} needs method.teacher.price_input and price_output"
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
                raise SettingsError(f"method.buffer.{name}={value} must be at least 1, or null for no limit")


@dataclass(frozen=True)
class RolloutSettings:
    """How questions get their rollouts; see `verl_relift/rollout`."""

    batched: bool = True
    workers: int = 0
    seeded: bool = True

    def __post_init__(self):
        if self.workers < 0:
            raise SettingsError(f"relift.rollout.workers={self.workers} must not be negative")


@dataclass(frozen=True)
class RewardSettings:
    """What a reward says about an answer; see `verl_relift/rewards/function.py`."""

    correct_from: float | None = None  # the least reward of a right answer; None: rewards are 0 or 1, or come with acc

    def __post_init__(self):
        if self.correct_from is not None and not math.isfinite(self.correct_from):
            raise SettingsError(f"relift.reward.correct_from={self.correct_from} must be finite, or null")


@dataclass(frozen=True)
class ResumeSettings:
    """What a run may resume from that is refused otherwise; see `verl_relift/run/resume.py`."""

    accept_changes: tuple[str, ...] = ()  # keys that may have other values than in the checkpoint
    trust_others: bool = False  # load checkpoints that somebody else may have written


@dataclass(frozen=True)
class ProgramSettings:
    """The group `relift`: settings of this program, whatever the method."""

    resume: ResumeSettings = field(default_factory=ResumeSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    threads: int | None = None  # of a process that computes on a CPU; None: its share of the cores
    reuse_log_probs: bool = True
    gradient_shares_every: int = 0  # steps between two that measure each role's share of the gradient; 0: none does
    speed_patches: bool = True

    def __post_init__(self):
        if self.gradient_shares_every < 0:
            raise SettingsError(
                f"relift.gradient_shares_every={self.gradient_shares_every} must not be negative; 0: never"
            )
        if self.threads is not None and self.threads < 1:
            raise SettingsError(f"relift.threads={self.threads} must be at least 1, or null for a share of the cores")


def require_places(key: str, template: str) -> None:
    """Check that a template has its two places.

    Raises:
        SettingsError: it does not.
    """
    if any(place not in template for place in ("{question}", "{hint}")):
        raise SettingsError(f"{key}={template!r} must contain {{question}} and {{hint}}")


def require_teacher(demonstrations: DemonstrationSettings, teacher: TeacherSettings) -> None:
    """Check that a source that asks a teacher says which.

    Raises:
        SettingsError: it does not.
    """
    if demonstrations.source.asks_teacher and not (teacher.base_url and teacher.model):
        raise SettingsError(
            f"method.demonstrations.source={demonstrations.source} asks a teacher: set method.teacher.base_url and "
            "method.teacher.model"
        )


def reuses_log_probs(config: Any) -> bool:
    """Whether the RL update takes the log-probs before it from its own pass, so that none is made for them.

    They are the same numbers where a batch is one update, since the weights have not changed. It makes a pass where
    something else needs them before the update.

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


def build(cls: type, mapping: dict[str, Any], path: str) -> Any:
    """Build the dataclass `cls` from a plain nested dict: a group of the configuration, resolved.

    Args:
        path: the group's key, for messages.

    Raises:
        SettingsError: naming the first key that is unknown, of the wrong type or out of range.
    """
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(mapping) - set(known))
    if unknown:
        there = f"{path} has {', '.join(known)}" if known else "this method has none; remove it"
        raise SettingsError(f"{path}.{unknown[0]} is not a setting; {there}")
    values = {}
    for name, value in mapping.items():
        values[name] = _convert(known[name].type, value, f"{path}.{name}")
    return cls(**values)


def _convert(kind: Any, value: Any, path: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise SettingsError(f"{path} must be a group of settings, not {value!r}")
        return build(kind, value, path)
    if isinstance(kind, UnionType):
        return None if value is None else _convert(get_args(kind)[0], value, path)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise SettingsError(f"{path}={value!r} must be a list")
        return tuple(_convert(get_args(kind)[0], item, path) for item in value)
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
