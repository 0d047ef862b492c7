"""CHORD (arXiv 2508.11408): (1 - mu) GRPO + mu SFT, on demonstrations drawn apart from the step's questions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..settings import SettingsError, SolutionSettings
from ..types import Group, Role
from .base import Needs, Resources, Supervised
from .joining import VerifyingMethod
from .placement import SplicedRows, one_update_problems, splice_problems
from .schedule import RiseAndFall
from .stream import Stream
from .weight import TokenWeight, Weight


@dataclass(frozen=True)
class StreamSettings:
    """`method.sft` of methods whose demonstrations are a batch of their own."""

    batch_size: int = 64  # demonstrations of a step
    token_weight: TokenWeight = TokenWeight.ONE

    def __post_init__(self):
        if self.batch_size < 1:
            raise SettingsError(f"method.sft.batch_size={self.batch_size} must be at least 1")


@dataclass(frozen=True)
class CHORDSettings:
    """`method` with `method=chord_mu`."""

    demonstrations: SolutionSettings = field(default_factory=SolutionSettings)
    sft: StreamSettings = field(default_factory=StreamSettings)
    mu: RiseAndFall = field(default_factory=lambda: RiseAndFall(peak=0.9, valley=0.05, decay_steps=200))

    def __post_init__(self):
        self.mu.require_fraction("method.mu")


class CHORD(VerifyingMethod):
    """Both losses are in one update; the coefficient mu of SFT is a function of the step."""

    Settings = CHORDSettings

    def __init__(self, settings: Any, resources: Resources):
        super().__init__(settings, resources)
        self._stream = Stream(resources.training_set, lambda epoch: resources.rng("stream", epoch))
        self._mu = 0.0

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        rows = settings.sft.batch_size
        return Needs(demonstrations=settings.demonstrations, supervised_rows=rows, exact_rows=True)

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        yield from splice_problems(config)
        yield from one_update_problems(config)

    @classmethod
    def token_weights(cls, settings: Any) -> Mapping[Role, Weight]:
        weight = settings.sft.token_weight.function
        return {} if weight is None else {Role.DEMONSTRATION: weight}

    def supervised(self, groups: Sequence[Group], step: int) -> Supervised:
        self._mu = self.settings.mu.at(step)
        if self._mu == 0.0:
            return Supervised()
        batch = self._stream.take(self.settings.sft.batch_size, lambda asked: self.verified(asked, step).values())
        self._counts["demonstrations_used"] = len(batch)
        self._counts["demonstration_tokens"] = sum(len(one.response_ids) for one in batch)
        return Supervised(spliced=SplicedRows(batch, weight=self._mu))

    def coefficients(self, step: int) -> dict[Role, float]:
        return {Role.OWN: 1.0 - self.settings.mu.at(step)}

    def metrics(self) -> dict[str, float]:
        return {"method/mu": self._mu, **super().metrics()}

    def state_dict(self) -> dict[str, Any]:
        return {"position": self._stream.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stream.position = state["position"]
