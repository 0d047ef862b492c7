"""Methods that consist of several runs: each stage is a training command, from the weights of the one before."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig

from .checks import chosen_method
from .methods import Stage
from .run import checkpoints, restarts
from .run.composition import Arguments

_NOT_FOR_STAGES = ("method", "trainer.default_local_dir")


def stages_of(config: DictConfig) -> Sequence[Stage]:
    """Return the stages of the configured method; none for a method of one run.

    Raises:
        SettingsError: a setting of the method is wrong.
    """
    method, settings = chosen_method(config)
    return method.stages(settings)


def stage_arguments(arguments: Arguments, config: DictConfig) -> Iterator[tuple[Stage, Arguments]]:
    """Yield each stage with the arguments of its training command, but for the model that a later one starts from.

    Args:
        arguments: of the whole command.
        config: composed from them.
    """
    run = Path(config.trainer.default_local_dir)
    kept = [o for o in arguments.overrides if not _is_for_the_whole(o.split("=", 1)[0].lstrip("+~"))]
    for stage in stages_of(config):
        folder = run / stage.folder
        own = [f"method={stage.method}", f"trainer.default_local_dir={folder}", *stage.overrides]
        yield stage, arguments.with_overrides([*kept, *own])


def run_stages(arguments: Arguments, config: DictConfig, platform: str, max_restarts: int) -> int:
    """Run the stages one after the other, from the first that is not finished; the exit status of the last run.

    Args:
        max_restarts: of each stage.
    """
    run = Path(config.trainer.default_local_dir)
    model: list[str] = []
    for stage, of_stage in stage_arguments(arguments, config):
        folder = run / stage.folder
        of_stage = of_stage.with_overrides([*of_stage.overrides, *model])
        steps = of_stage.compose(platform).trainer.total_training_steps
        if _steps_made(folder) < steps:
            command = [sys.executable, "-m", "verl_relift.train", *of_stage.command_line()]
            status = restarts.supervise(command, folder, max_restarts)
            if status != 0:
                return status
        weights = checkpoints.latest(folder) / "actor" / "model" / "huggingface"
        model = [f"actor_rollout_ref.model.path={weights}"]
    return 0


def _steps_made(folder: Path) -> int:
    latest = checkpoints.latest(folder)
    return checkpoints.step_of(latest) if latest is not None else 0


def _is_for_the_whole(key: str) -> bool:
    return key in _NOT_FOR_STAGES or key.startswith("method.")
