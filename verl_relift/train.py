"""Train: `python -m verl_relift.train [--config-name NAME] [--max-restarts N] key=value ...`

Configuration -> preflight -> Ray -> trainer. The trainer runs in this process, so that Ctrl-C and errors end here and
one import of the stack is saved; everything heavy happens in Ray actors. A method of several stages runs each as a
process of its own.
"""

import logging
import os
import re
import signal
import sys
import tempfile
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .checks import ConfigurationError, settings_problems, shortened
from .methods import method_class
from .preflight import check
from .run import checkpoints, disk, leftovers, lock, restarts, resume, stopping, trust
from .run import folder as runfolder
from .run.composition import Arguments
from .run.environment import SPEED_PATCHES, detect_platform, prepare_environment, prepare_ray
from .settings import SettingsError
from .stages import run_stages, stage_arguments, stage_problems


def _show_own_messages() -> None:
    """Give this program's loggers a handler of their own: a library that vLLM imports silences the root logger."""
    logger = logging.getLogger("verl_relift")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def run(config: DictConfig) -> None:
    """Train as `config` says, in this process and the Ray cluster it starts or joins.

    Raises:
        ConfigurationError: before Ray starts, if the configuration can't work.
        Stopped: if stopping was requested with steps left; the checkpoint is saved.
    """
    _show_own_messages()
    check(config)
    for line in resume.find(config).lines():
        print(line, file=sys.stderr, flush=True)
    OmegaConf.resolve(config)
    folder = Path(config.trainer.default_local_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        runfolder.remove_leftovers(folder)
        runfolder.write_config(folder, config)
    except OSError as error:
        raise ConfigurationError(disk.cannot_write(error, folder)) from error
    if stopping.stop_requested():
        raise stopping.Stopped("stopped before the first step, as requested; the same command starts or resumes it")
    # verl's trackers would write beside the run, into the working directory.
    os.environ.setdefault("TENSORBOARD_DIR", str(folder / "tensorboard"))
    os.environ.setdefault("WANDB_DIR", str(folder))

    from .run.cluster import started

    with started(config):
        # After Ray, which sets a handler that ends with status 15. This one unwinds like Ctrl-C.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        _train(config)


def _train(config: DictConfig) -> None:
    import transfer_queue as tq

    from .rollout import server
    from .rollout.manager import shut_down
    from .run.failure import RunFailed, explain, workers_end_with
    from .trainer import MethodTrainer

    config.transfer_queue.enable = True
    tq.init(config.transfer_queue)
    server.register()
    trainer = MethodTrainer(config)
    succeeded = False
    deaths: list[str] = []
    with ExitStack() as at_end:  # in reverse order, each whatever becomes of the others
        at_end.callback(tq.close)
        at_end.callback(lambda: shut_down([server for _, server in trainer.servers()]))
        at_end.callback(lambda: trainer.logger and trainer.logger.finish(exit_code=0 if succeeded else 1))
        at_end.callback(trainer.close)
        try:
            trainer.init()
            manager = _rollout_manager(config, trainer)
            at_end.callback(getattr(manager, "close", lambda: None))
            with workers_end_with(trainer.workers(), trainer.servers()) as deaths:
                trainer.fit(manager)
            succeeded = True
        except Exception as error:
            if full := disk.full(error, _written_to(config)):
                raise disk.DiskFull(f"step {trainer.global_steps}: {full}") from error
            actors = [*trainer.workers(), *trainer.servers()]
            raise RunFailed(explain(error, actors, trainer.global_steps, deaths)) from error
    if trainer.stopped_after is not None:
        raise stopping.Stopped(
            f"stopped after step {trainer.stopped_after}, as requested; "
            "with trainer.resume_mode=auto the same command resumes from there"
        )


def _written_to(config: DictConfig) -> list[Path]:
    return [Path(config.trainer.default_local_dir), Path("/dev/shm"), Path(tempfile.gettempdir())]


def _rollout_manager(config: DictConfig, trainer):
    if trainer.settings.rollout.batched:
        from .rollout.manager import RolloutManager

        seed = config.data.seed if trainer.settings.rollout.seeded else None
        servers, with_roles = trainer.llm_server_manager.server_handles, trainer.method.writes_roles()
        return RolloutManager(config, servers, trainer.tokenizer, seed, with_roles)

    from verl.trainer.ppo.v1 import AgentLoopManagerTQ
    from verl.utils.import_utils import load_class_from_fqn

    named = config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")
    manager = load_class_from_fqn(named, "AgentLoopManager") if named else AgentLoopManagerTQ
    return manager.create(
        config=config,
        llm_client=trainer.get_llm_client(),
        teacher_client=trainer.get_teacher_client(),
        reward_loop_worker_handles=trainer.get_reward_handles(),
    )


# Not in the YAML: Hydra takes its own settings only from the primary config, which may be a user's.
_DEFAULT_OVERRIDES = {
    "hydra.searchpath": "[pkg://verl.trainer.config]",
    "hydra.run.dir": "${trainer.default_local_dir}",
    "hydra.output_subdir": "null",
    "hydra/job_logging": "none",
}


# Hydra's options that show something and train nothing.
_SHOWING = ("help", "hydra_help", "cfg", "info", "shell_completion")


@hydra.main(config_path="pkg://verl_relift.config", config_name="relift", version_base=None)
def _main(config: DictConfig) -> None:
    try:
        run(config)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except stopping.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopping.EXIT_STATUS)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sys.exit(_report(error, config))


def _report(error: Exception, config: DictConfig) -> int:
    """Print what ended a training, with the cause in the last line, and remove what it has not finished.

    Returns:
        The exit status.
    """
    full = disk.full(error, _written_to(config))
    if not lock.is_lost():
        with suppress(OSError):  # it is about another failure, which is told next
            checkpoints.discard_partial(Path(config.trainer.default_local_dir))
    if full:
        print(f"training failed: {full}", file=sys.stderr)
        return disk.EXIT_STATUS
    # Not Hydra's report of it, which says little and ends with advice on Hydra.
    traceback.print_exception(error)
    print(f"training failed: {error}", file=sys.stderr)
    return 1


def main() -> None:
    """Command line."""
    stopping.listen()
    try:
        max_restarts, sys.argv[1:] = restarts.take_option(sys.argv[1:])
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    prepare_environment()
    _act_before_hydra(max_restarts)
    _complete_arguments()
    _main()


def _act_before_hydra(max_restarts: int) -> None:
    """Do what must come before verl is imported, which Hydra does to find its files; child processes end here."""
    # Hydra's own parser knows every spelling: -c job, --cfg=job, -cjob.
    shown, _ = get_args_parser().parse_known_args()
    if any(getattr(shown, name) for name in _SHOWING):
        return
    arguments, platform = Arguments.parse(sys.argv[1:]), detect_platform()
    try:
        for override in arguments.overrides:
            if override.startswith("method="):
                method_class(override.partition("=")[2])
        config = arguments.compose(platform)
        problems = list(settings_problems(config))
        stages = [] if problems else list(stage_arguments(arguments, config))
        runs = [(stage, of_stage.compose(platform)) for stage, of_stage in stages]
        problems = problems or stage_problems(runs)
    except (HydraException, OmegaConfBaseException) as error:
        # Of Hydra's lines the first names the key or file; the others are advice that rarely fits.
        problem = str(error).strip().splitlines()[0].rstrip(".")
        problem = re.sub(r"Could not override '(.*)'", r"\1: there is no such key", problem)
        print(f"{problem}; docs/train.md explains the keys, and --cfg job prints them", file=sys.stderr)
        sys.exit(2)
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if problems:
        print("\n".join(shortened(problems)), file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault(SPEED_PATCHES, "1" if config.relift.speed_patches else "0")
    prepare_ray(config.trainer.nnodes, config.ray_kwargs.ray_init.get("address"))
    if stages:
        sys.exit(run_stages(runs, [of_stage for _, of_stage in stages], max_restarts))
    _end_if_done(config)
    if max_restarts:
        command = [sys.executable, "-m", "verl_relift.train", *sys.argv[1:]]
        sys.exit(restarts.supervise(command, Path(config.trainer.default_local_dir), max_restarts))
    _take_folder(Path(config.trainer.default_local_dir), config.relift.resume.trust_others)


def _end_if_done(config: DictConfig) -> None:
    """End here, with status 0, if no step is left."""
    start = resume.find(config)
    if start.is_done and not config.trainer.val_only:
        print(*start.lines(), sep="\n", file=sys.stderr)
        sys.exit(0)


def _take_folder(folder: Path, trust_others: bool) -> None:
    """Lock the run's folder until this process ends, and remove what dead runs have left on this machine."""
    try:
        lock.hold(folder)
        if not trust_others:
            trust.require_closed(folder, folder / lock.LOCK)
    except (lock.FolderInUse, trust.Untrusted) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(disk.cannot_write(error, folder), file=sys.stderr)
        sys.exit(2)
    leftovers.remove()
    leftovers.note_this_run()


def _complete_arguments() -> None:
    """Add this program's defaults to the command line, where Hydra takes them."""
    # argparse wants overrides, which are positional, in one piece, and before an option whose value may be left out. A
    # later one wins.
    overrides = [argument for argument in sys.argv[1:] if "=" in argument and not argument.startswith("-")]
    options = [argument for argument in sys.argv[1:] if argument not in overrides]
    if get_args_parser().parse_known_args(options)[0].hydra_help:
        return  # it shows Hydra's own settings, among which there is no platform
    given = {argument.split("=", 1)[0] for argument in sys.argv[1:] if "=" in argument}
    defaults = {**_DEFAULT_OVERRIDES, "platform": detect_platform()}
    sys.argv[1:] = [*(f"{k}={v}" for k, v in defaults.items() if k not in given), *overrides, *options]


if __name__ == "__main__":
    main()
