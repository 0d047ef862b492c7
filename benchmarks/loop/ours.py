"""``python -m benchmarks.loop.ours key=value ...``: ``verl_relift.train`` whose steps wait for their turn."""

import sys
from typing import Any

from benchmarks.loop.turns import Player, Work
from verl_relift import train
from verl_relift.run.environment import prepare_environment


def _install() -> None:
    """Put a trainer that takes turns in the place of the one that training starts."""
    from verl_relift import trainer

    class TrainerInTurns(trainer.ReLIFTTrainer):
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

    trainer.ReLIFTTrainer = TrainerInTurns


if __name__ == "__main__":
    prepare_environment()  # before the trainer's module imports torch, Ray and verl
    _install()
    train.main()
