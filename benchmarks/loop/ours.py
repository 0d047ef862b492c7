"""Runs `verl_relift.train` in steps that wait for their turn: `python -m benchmarks.loop.ours key=value ...`"""

import sys
from typing import Any

from omegaconf import DictConfig

from benchmarks.loop.turns import Player, Work
from verl_relift import train
from verl_relift.run.environment import prepare_environment
from verl_relift.run.progress import Progress

_train = train._train


def _train_in_turns(config: DictConfig, progress: Progress) -> None:
    """Train with a trainer that takes turns. The trainer is imported here, after training has set its environment."""
    from verl_relift import trainer

    class TrainerInTurns(trainer.MethodTrainer):
        def on_train_begin(self) -> None:
            super().on_train_begin()
            self._player = Player.of_environment()

        def on_step_begin(self) -> None:
            if not self._player.begin_step():
                sys.exit(0)
            super().on_step_begin()

        def _compute_metrics(self, batch: Any, metrics: dict, *args: Any, **kwargs: Any) -> None:
            super()._compute_metrics(batch, metrics, *args, **kwargs)
            tags = [tag for tag in batch.tags if not tag.get("is_padding", False)]
            reward = metrics["critic/score/mean"] * len(tags)
            lengths = [tag["response_len"] for tag in tags]
            self._player.trained(Work(lengths, sum(tag["prompt_len"] for tag in tags), reward))

    trainer.MethodTrainer = TrainerInTurns
    _train(config, progress)


if __name__ == "__main__":
    prepare_environment()
    train._train = _train_in_turns
    train.main()
