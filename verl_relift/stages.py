"""Methods that consist of several runs: each stage is a training command, from the weights of the one before."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig

from . import schema
from .checks import batch_problems, chosen_method, settings_problems
from .data.lengths import demonstration_lengths
from .methods import Stage
from .run import checkpoints, restarts
from .run.budget import By, spent
from .run.composition import Arguments
from .settings import SettingsError

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

    Raises:
        SettingsError: a stage is to spend the budget of a run that has none, or cannot be read.
    """
    run = Path(config.trainer.default_local_dir)
    kept = [o for o in arguments.overrides if not _is_for_the_whole(o.split("=", 1)[0].lstrip("+~"))]
    for stage in stages_of(config):
        folder = run / stage.folder
        own = [f"method={stage.method}", f"trainer.default_local_dir={folder}", *stage.overrides]
        if stage.match is not None:
            own.append(f"trainer.total_training_steps={_matched_steps(stage, arguments.with_overrides([*kept, *own]))}")
        yield stage, arguments.with_overrides([*kept, *own])


def _matched_steps(stage: Stage, arguments: Arguments) -> int:
    """Return how many steps of the stage spend what another run has spent on demonstrations."""
    key, config = f"method.first.match={stage.match}", arguments.compose("cpu")
    wanted, model = config.method.demonstrations, config.actor_rollout_ref.model
    try:
        total = spent(Path(stage.match).expanduser())
        files = config.data.train_files
        files = [files] if isinstance(files, str) else list(files)
        lengths = demonstration_lengths(files, model.tokenizer_path or model.path, wanted.column, wanted.max_tokens)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{key}: {str(error).splitlines()[0]}; name the folder of a run") from error
    if not total.tokens or (stage.by is By.DEMONSTRATIONS and not total.demonstrations):
        raise SettingsError(f"{key}: the run has counted no demonstrations that it trained on; name another")
    if not lengths.share:
        raise SettingsError(
            f"data.train_files: no demonstration in column {wanted.column}; method.first.match needs some"
        )
    return total.steps(stage.by, config.data.train_batch_size * lengths.share, lengths.tokens)


def stage_problems(runs: Sequence[tuple[Stage, DictConfig]]) -> list[str]:
    """Return what would end a stage before it starts, or leave the next one without weights: a line per problem.

    Args:
        runs: each stage with the configuration of its run.
    """
    problems, weights = [], None
    for stage, config in runs:
        trainer = config.trainer
        if weights is not None:
            config = config.copy()
            config.actor_rollout_ref.model.path = weights  # with which a checkpoint of the stage began
        weights = str(_weights(Path(trainer.default_local_dir) / f"global_step_{trainer.total_training_steps}"))
        checks = (settings_problems(config), batch_problems(config), _problems_of_stage(stage, trainer))
        # With a value of another kind than its key's the others can't be compared.
        found = list(schema.problems(config)) or [problem for check in checks for problem in check]
        problems += [f"stage {stage.folder}: {problem}" for problem in found]
    return problems


def _problems_of_stage(stage: Stage, trainer: DictConfig) -> Iterator[str]:
    """Yield what a run by itself may have, but not one that another run starts from."""
    if any(override.lstrip("+").startswith("relift.speed_patches=") for override in stage.overrides):
        yield "relift.speed_patches acts on all stages; set it for the whole command"
    if not trainer.total_training_steps:
        yield "trainer.total_training_steps: a stage needs a number of steps; set it"
    if trainer.save_freq <= 0:
        yield f"trainer.save_freq={trainer.save_freq}: a stage must save its last step; set a positive number"
    if trainer.resume_mode == "resume_path":
        yield "trainer.resume_mode=resume_path: a stage resumes from its own folder; use auto or disable"


def run_stages(
    runs: Sequence[tuple[Stage, DictConfig]],
    commands: Sequence[Arguments],
    max_restarts: int,
    options: Sequence[str] = (),
) -> int:
    """Run the stages one after the other, from the first that is not finished.

    Args:
        runs: each stage with the configuration of its run.
        commands: the arguments of each stage's command.
        max_restarts: of each stage.
        options: further options of each stage's command.

    Returns:
        The exit status of the last command that ran.
    """
    model: list[str] = []
    for (stage, config), arguments in zip(runs, commands, strict=True):
        folder, steps = Path(config.trainer.default_local_dir), config.trainer.total_training_steps
        if config.trainer.resume_mode == "auto" and _steps_made(folder) >= steps:
            print(f"stage {stage.folder}: its {steps} steps are done, see {folder}", file=sys.stderr)
        else:
            command = [*arguments.command_line(), *options, *model]
            status = restarts.supervise([sys.executable, "-m", "verl_relift.train", *command], folder, max_restarts)
            if status != 0:
                return status
            if _steps_made(folder) < steps:
                print(
                    f"stage {stage.folder}: ended after step {_steps_made(folder)} of {steps}; raise "
                    "trainer.total_epochs, or lower trainer.total_training_steps",
                    file=sys.stderr,
                )
                return 1
        model = [f"actor_rollout_ref.model.path={_weights(checkpoints.latest(folder))}"]
    return 0


def _weights(checkpoint: Path) -> Path:
    return checkpoint / "actor" / "model" / "huggingface"


def _steps_made(folder: Path) -> int:
    latest = checkpoints.latest(folder)
    return checkpoints.step_of(latest) if latest is not None else 0


def _is_for_the_whole(key: str) -> bool:
    return key in _NOT_FOR_STAGES or key.startswith("method.")
