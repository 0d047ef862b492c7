"""Train: `python -m verl_relift.train [--config-name NAME] [--max-restarts N] [--verbose] key=value ...`

Configuration -> preflight -> Ray -> trainer. The trainer runs in this process, so that Ctrl-C and errors end here and
one import of the stack is saved; everything heavy happens in Ray actors. A method of several stages runs each as a
process of its own. What the user reads is written by `run/console.py`, everything else goes to a log file.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import hydra
import psutil
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .checks import ConfigurationError, chosen_method, missing, rejected, settings_problems, shortened
from .preflight import check
from .run import announce, checkpoints, console, disk, leftovers, lock, restarts, resume, stopping, threads, trust
from .run import folder as runfolder
from .run.composition import Arguments
from .run.environment import SPEED_PATCHES, detect_platform, prepare_environment, prepare_ray
from .run.progress import Progress
from .schema import flag_problems, refusal
from .settings import SettingsError
from .stages import run_stages, stage_arguments, stage_problems
from .usage import training as usage


def run(config: DictConfig) -> None:
    """Train as `config` says, in this process and the Ray cluster it starts or joins.

    Raises:
        ConfigurationError: before Ray starts, if the configuration can't work.
        Stopped: if stopping was requested with steps left; the checkpoint is saved.
    """
    console.show_messages()
    left_out = check(config)
    config.transfer_queue.enable = True  # before it is compared with the checkpoint's
    start = resume.find(config)
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

    method, settings = chosen_method(config)
    console.live("")
    opening = announce.opening(config, start, method.needs(settings).rollouts)
    console.say("\n".join([*opening, *left_out, *_threads(config)]))
    with Progress() as progress:
        progress.start("starting Ray, the training engine and vLLM")
        _run_in_cluster(config, progress)
    console.say("\n".join(announce.closing(config, progress.records, _seconds_of_this_process())))


def _seconds_of_this_process() -> float:
    """Return how long this process has run, imports included."""
    return time.time() - psutil.Process().create_time()


def _threads(config: DictConfig) -> list[str]:
    """Choose the threads of the processes that compute on a CPU, and return the line that says so."""
    if config.trainer.device != "cpu":
        return []
    from transformers import AutoConfig

    model = AutoConfig.from_pretrained(config.actor_rollout_ref.model.path, trust_remote_code=False).get_text_config()
    number, why = threads.choose(config.relift.threads, model.hidden_size, config.trainer.n_gpus_per_node)
    return [f"  threads: {number} in each training rank and vLLM worker ({why}); relift.threads sets it"]


def _run_in_cluster(config: DictConfig, progress: Progress) -> None:
    from .run.cluster import started

    def ending() -> str:
        progress.doing = lambda: "stopping"
        return announce.ending(config, progress.records.get("last", {"step": 0})["step"])

    stopping.end_with(ending)
    with started(config):
        stopping.end_with(ending)  # again, because Ray has set a handler of SIGTERM, which ends with status 15
        _train(config, progress)


def _train(config: DictConfig, progress: Progress) -> None:
    import transfer_queue as tq

    from .rollout import server
    from .rollout.manager import shut_down
    from .run.failure import RunFailed, explain, workers_end_with
    from .trainer import MethodTrainer

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
            trainer.on_record = lambda record: progress.update(record, trainer.total_training_steps)
            progress.doing = trainer.doing
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
    "hydra/hydra_logging": "none",
}

_VERBOSE = "--verbose"


@hydra.main(config_path="pkg://verl_relift.config", config_name="relift", version_base=None)
def _main(config: DictConfig) -> None:
    try:
        run(config)
    except ConfigurationError as error:
        console.say(rejected(str(error).splitlines()))
        sys.exit(2)
    except stopping.Stopped as stopped:
        console.say(str(stopped))
        sys.exit(stopping.EXIT_STATUS)
    except KeyboardInterrupt:
        console.say("interrupted" if stopping.is_ending() else f"interrupted; {announce.resumes_from(config)}")
        sys.exit(130)
    except SystemExit as end:
        if end.code in (signal.SIGTERM, 128 + signal.SIGTERM):  # the former by Ray's handler, while Ray starts
            said = "ended by SIGTERM"
            console.say(said if stopping.is_ending() else f"{said}; {announce.resumes_from(config)}")
            sys.exit(128 + signal.SIGTERM)
        elif end.code:
            console.say(_ended(end))
        raise
    except Exception as error:
        sys.exit(_report(error, config))


def _ended(end: SystemExit) -> str:
    """Return the line about an end that a library has chosen, whose reason is in the log only."""
    reason = end.code if isinstance(end.code, str) else f"status {end.code}"
    last = console.last_logged()
    return f"training failed: {reason}" + (f": {last}" if last and last != reason else "")


def _report(error: Exception, config: DictConfig) -> int:
    """Say what ended a training, with the cause in the last line, and remove what it has not finished.

    Returns:
        The exit status.
    """
    full = disk.full(error, _written_to(config))
    if not lock.is_lost():
        with suppress(OSError):  # it is about another failure, which is told next
            checkpoints.discard_partial(Path(config.trainer.default_local_dir))
    if not full:
        traceback.print_exception(error)  # into the log
    if console.log_file() is not None:
        console.say(f"{console.log_file()} has the details; {announce.resumes_from(config)}")
    console.say(f"training failed: {full or _cause(error)}")
    return disk.EXIT_STATUS if full else 1


def _cause(error: Exception) -> str:
    from .run.failure import RunFailed, engine_error

    if not isinstance(error, RunFailed):
        return f"{type(error).__name__}: {error}"  # `'score'` alone would say nothing
    log = console.log_file()
    of_engine = engine_error(str(error), log) if log is not None else None
    return of_engine or str(error)


def main() -> None:
    """Command line."""
    stopping.listen()
    try:
        max_restarts, sys.argv[1:] = restarts.take_option(sys.argv[1:])
    except ValueError as error:
        _require_none([str(error)])
    verbose = _VERBOSE in sys.argv
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != _VERBOSE]
    prepare_environment()
    said = None
    try:
        _act_before_hydra(max_restarts, verbose)
        said = console.times_said()
        _complete_arguments()
        _main()
    except KeyboardInterrupt:
        console.say("interrupted")
        sys.exit(130)
    except SystemExit as end:
        # From here on, what Hydra and its parser print goes to the log.
        if end.code and console.log_file() is not None and console.times_said() == said:
            console.say(_ended(end))
        raise
    except Exception as error:
        if console.log_file() is None:
            raise
        traceback.print_exception(error)  # into the log
        console.say(f"training failed: {_cause(error)}")
        sys.exit(1)
    finally:
        console.live("")
        console.show_followed()


def _act_before_hydra(max_restarts: int, verbose: bool = False) -> None:
    """Do what must come before verl is imported, which Hydra does to find its files; child processes end here."""
    _require_none(list(flag_problems(sys.argv[1:], (restarts.OPTION, _VERBOSE), detect_platform())))
    # Hydra's own parser knows every spelling: -c job, --cfg=job, -cjob.
    shown, _ = get_args_parser().parse_known_args()
    if shown.help:
        print(usage(), end="")
        sys.exit(0)
    if shown.hydra_help or shown.shell_completion:
        return
    arguments, platform = Arguments.parse(sys.argv[1:]), detect_platform()
    try:
        config = arguments.compose(platform)
        if shown.cfg or shown.info:
            return
        problems = list(settings_problems(config))
        stages = [] if problems else list(stage_arguments(arguments, config))
        runs = [(stage, of_stage.compose(platform)) for stage, of_stage in stages]
        problems = problems or stage_problems(runs)
    except (HydraException, OmegaConfBaseException) as error:
        problems = [refusal(error, arguments.overrides, platform)]
    except SettingsError as error:
        problems = [str(error)]
    _require_none(shortened(problems))
    os.environ.setdefault(SPEED_PATCHES, "1" if config.relift.speed_patches else "0")
    prepare_ray(config.trainer.nnodes, config.ray_kwargs.ray_init.get("address"))
    if stages:
        sys.exit(run_stages(runs, [of_stage for _, of_stage in stages], max_restarts, [_VERBOSE] * verbose))
    _end_if_done(config)
    if max_restarts:
        command = [sys.executable, "-m", "verl_relift.train", *[_VERBOSE] * verbose, *sys.argv[1:]]
        sys.exit(restarts.supervise(command, Path(config.trainer.default_local_dir), max_restarts))
    _take_folder(Path(config.trainer.default_local_dir), config.relift.resume.trust_others)
    _require_none(list(missing(config)))
    _open_log(Path(config.trainer.default_local_dir), verbose)


def _require_none(problems: Sequence[str]) -> None:
    """End here, with status 2, if there are problems."""
    if problems:
        print(rejected(problems), file=sys.stderr)
        sys.exit(2)


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


def _open_log(folder: Path, verbose: bool) -> None:
    """Leave the console to this program: what libraries print goes to the run's log."""
    try:
        console.redirect(folder / console.LOG, follow=verbose)
    except OSError as error:
        print(disk.cannot_write(error, folder), file=sys.stderr)
        sys.exit(2)
    checking = "checking the settings, the model and the data ..."
    console.live(checking) if console.is_terminal() else console.say(checking)


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
