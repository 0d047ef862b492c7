"""Runs `verl_relift.train` in steps that take turns in kind; `python -m benchmarks.step` starts it."""

from omegaconf import DictConfig

from verl_relift import train
from verl_relift.run.environment import prepare_environment
from verl_relift.run.progress import Progress

_train = train._train


def _train_in_turns(config: DictConfig, progress: Progress) -> None:
    """Train with `TakingTurns`. It is imported here, after training has set its environment."""
    from benchmarks.step.trainer import TakingTurns
    from verl_relift import trainer

    trainer.MethodTrainer = TakingTurns
    _train(config, progress)


if __name__ == "__main__":
    prepare_environment()
    train._train = _train_in_turns
    train.main()
