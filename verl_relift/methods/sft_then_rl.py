"""Supervised fine-tuning, then reinforcement learning from its last checkpoint: two stages of one command."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..run.budget import By
from ..settings import SettingsError
from .base import Method, Stage
from .registry import METHODS


@dataclass(frozen=True)
class FirstStageSettings:
    """`method.first`: supervised fine-tuning."""

    overrides: tuple[str, ...] = ()  # key=value, for this stage alone
    match: str | None = None  # folder of a run: this stage makes as many steps as spend what that run has spent
    by: By = By.DEMONSTRATIONS

    def __post_init__(self):
        if self.match and any(override.startswith("trainer.total_training_steps=") for override in self.overrides):
            raise SettingsError(
                f"method.first.match={self.match} and trainer.total_training_steps in method.first.overrides both say "
                "how many steps the stage makes; leave one out"
            )


@dataclass(frozen=True)
class SecondStageSettings:
    """`method.then`: what follows."""

    method: str = "grpo"
    overrides: tuple[str, ...] = ()  # key=value, for this stage alone

    def __post_init__(self):
        if self.method not in METHODS or self.method == "sft_then_rl":
            choices = ", ".join(sorted(METHODS.keys() - {"sft_then_rl"}))
            raise SettingsError(f"method.then.method={self.method}: choose one of {choices}")


@dataclass(frozen=True)
class SFTThenRLSettings:
    """`method` with `method=sft_then_rl`."""

    first: FirstStageSettings = field(default_factory=FirstStageSettings)
    then: SecondStageSettings = field(default_factory=SecondStageSettings)

    def __post_init__(self):
        for name, overrides in (("first", self.first.overrides), ("then", self.then.overrides)):
            for override in overrides:
                if "=" not in override:
                    raise SettingsError(f"method.{name}.overrides: {override!r} is not of the form key=value")


class SFTThenRL(Method):
    """Two runs in the folders `sft` and `rl` of the run; the second starts from the first one's weights."""

    Settings = SFTThenRLSettings

    @classmethod
    def stages(cls, settings: Any) -> Sequence[Stage]:
        return (
            Stage("sft", "sft", settings.first.overrides, settings.first.match, settings.first.by),
            Stage("rl", settings.then.method, settings.then.overrides),
        )
