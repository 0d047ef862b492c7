"""ReLIFT (arXiv 2506.07527): supervised updates on exactly those questions that every rollout fails."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..types import Group
from .base import Needs, Supervised
from .collecting import CollectingMethod, CollectingSettings
from .placement import Moments, OwnStepSettings, SupervisedUpdate, own_step_problems
from .schedule import Schedule


@dataclass(frozen=True)
class ReLIFTSettings(CollectingSettings):
    """`method` with `method=relift`."""

    sft: OwnStepSettings = field(default_factory=OwnStepSettings)


class ReLIFT(CollectingMethod):
    """Hardest questions' demonstrations wait in a buffer; M of them make one optimizer step after the RL update."""

    Settings = ReLIFTSettings

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        return Needs(
            demonstrations=settings.demonstrations,
            supervised_rows=settings.sft.batch_size,
            own_step=True,
            separate_moments=settings.sft.optimizer is Moments.SEPARATE,
            token_budget=settings.sft.max_token_len_per_gpu,
            failed_groups=True,
            updates=settings.schedule.max_updates_per_step,
            epochs=settings.sft.epochs,
            exact_rows=settings.schedule.kind is Schedule.ADAPTIVE,
            retries=int(cls.asks_again(settings)),
        )

    @classmethod
    def problems(cls, settings: Any, config: Any) -> Iterator[str]:
        yield from own_step_problems(settings.sft, config)

    def supervised(self, groups: Sequence[Group], step: int) -> Supervised:
        self.collect(groups, step)
        return Supervised(updates=partial(self.updates, step))

    def updates(self, step: int) -> list[SupervisedUpdate]:
        """Return the optimizer steps that are due after the RL update."""
        made = self.collector.updates
        batches = [self.take(size, step) for size in self.batches_due(step)]
        return [self.settings.sft.update(batch, made + i) for i, batch in enumerate(batches)]
