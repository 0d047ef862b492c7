"""Predict whether a run fits: `python -m verl_relift.plan [--gpu h100] [--trace] [--json] key=value ...`

Composes the same configuration as `verl_relift.train` from the same arguments. Without a GPU and without importing
torch, vLLM or Ray, it prints memory by part and phase, tokens and FLOPs of a step, the largest micro-batch that fits,
and what to change if the run does not fit. With `--trace` it also builds the real training engine, without a GPU and
without its memory, and makes the updates of a step. Exit status: 0: the run fits, 1: it does not fit, 2: training
would reject the arguments whatever the memory, or the engine does not build.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from .. import schema
from ..checks import ConfigurationError, rejected, require_none
from ..run.composition import Arguments
from ..run.environment import detect_platform, prepare_environment
from ..settings import SettingsError
from ..stages import stage_arguments
from ..trace import TraceError
from ..usage import argument_parser
from . import hardware, layouts, tracing
from .planner import make_plan
from .report import STOPS_BEFORE, Plan, as_json, show, show_total, show_trace
from .shapes import Preparation, UnknownModel, load_config


def _parse() -> tuple[argparse.Namespace, list[str]]:
    does = "Predict the memory, tokens and FLOPs of a run before it starts."
    parser = argument_parser("verl_relift.plan", does, "key=value ...", "docs/scale.md")
    parser.add_argument("--config-name", default="relift", help="as in verl_relift.train; default %(default)s")
    parser.add_argument("--config-dir", help="folder with your own configuration")
    size = parser.add_mutually_exclusive_group()
    known = "plan for this GPU instead of the one found here"
    size.add_argument("--gpu", type=_named, metavar="NAME", help=f"{known}: {', '.join(hardware.KNOWN)}")
    size.add_argument("--gpu-memory", type=_gib, metavar="GIB", help="plan for a GPU with this much memory")
    host = "host memory of a machine; default: on CPU what is available, on GPUs no limit"
    parser.add_argument("--memory", type=_gib, metavar="GIB", help=host)
    parser.add_argument("--response-tokens", type=float, help="mean response length; default: half of the longest")
    limit = "time limit of a job: how many jobs does the run need"
    parser.add_argument("--time-limit", type=_hours, metavar="HOURS", help=limit)
    parser.add_argument("--local-spec", action="store_true", help="on CUDA: plan without Transformer Engine")
    prepare = "command of data_preprocess.prepare_model that makes the model's folder, planned from it while missing"
    parser.add_argument("--prepare", metavar="COMMAND", type=_preparation, help=prepare)
    parser.add_argument("--trace", action="store_true", help="also make a step with the real engine, without a GPU")
    parser.add_argument("--layouts", action="store_true", help="compare tensor and pipeline parallel sizes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in verl_relift.train")
    arguments = parser.parse_intermixed_args()
    for flag in ("trace", "time_limit"):
        if arguments.layouts and getattr(arguments, flag):
            parser.error(f"--{flag.replace('_', '-')} is for one layout; leave it out, or --layouts")
    return arguments, arguments.overrides


def _preparation(command: str) -> Preparation:
    try:
        return Preparation.of_command(command)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{command!r}: {error}") from None


def _named(name: str) -> hardware.Accelerator:
    try:
        return hardware.named(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _gib(text: str) -> float:
    """Read a number of GiB, with or without the unit. GPUs are called by GB and have about as many GiB."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:gib|gb|g)?", text.strip().lower())
    if number is None or not float(number[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GiB above 0, such as 80 or 80GiB")
    return float(number[1])


def _hours(text: str) -> float:
    """Read hours: a number, or a time as `#SBATCH --time` has it, with hours and seconds or with days."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?) *h?", text.strip())
    of_slurm = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    hours = float(number[1]) if number else 0.0
    # Slurm reads `90:00` without days as minutes and seconds, which nobody means here.
    if not number and of_slurm and (of_slurm[1] or of_slurm[4]):
        days, whole, minutes, seconds = (int(part or 0) for part in of_slurm.groups())
        hours = 24 * days + whole + minutes / 60 + seconds / 3600
    if hours * 3600 <= STOPS_BEFORE:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of hours above 0.5, such as 24, or a time such as 24:00:00 or 1-00:00:00"
        )
    return hours


def _gpu(arguments: argparse.Namespace) -> hardware.Accelerator | None:
    if arguments.gpu_memory:
        return hardware.Accelerator(f"GPU of {arguments.gpu_memory:g} GiB", int(arguments.gpu_memory * (1 << 30)))
    return arguments.gpu or hardware.visible_gpu()


def main() -> int:
    """Run the command.

    Returns:
        The exit status: 0: the run fits, 1: it does not fit, 2: training would reject it whatever the memory.
    """
    arguments, overrides = _parse()
    prepare_environment()
    gpu = _gpu(arguments)
    platform = "cuda" if arguments.gpu or arguments.gpu_memory else detect_platform()
    command = Arguments(arguments.config_name, arguments.config_dir, tuple(overrides))
    try:
        runs = _runs(command, platform)
        if gpu is None and any(run.trainer.device == "cuda" for run in runs.values()):
            print("no GPU found on this machine; name one with --gpu or --gpu-memory", file=sys.stderr)
            return 2
        if arguments.layouts:
            return _compare(command, platform, runs, gpu, arguments)
        plans = {name: _plan(run, gpu, arguments, name) for name, run in runs.items()}
        traces = {}
        if arguments.trace:
            traces = {name: _trace(runs[name], plan, arguments.prepare) for name, plan in plans.items()}
    except (HydraException, OmegaConfBaseException) as error:
        return _reject([schema.refusal(error, overrides, platform)], arguments.json)
    except TraceError as error:
        print(str(error).strip(), file=sys.stderr)
        return 2
    except (ConfigurationError, SettingsError, UnknownModel) as error:
        return _reject(str(error).splitlines(), arguments.json)
    if gpu is None and platform == "cpu" and not any(override.startswith("platform=") for override in overrides):
        print("this machine has no GPU, so that this is a plan for its CPU; for GPUs add --gpu NAME", file=sys.stderr)
    _print(plans, traces, arguments)
    return 0 if all(plan.fits for plan in plans.values()) else 1


def _reject(problems: list[str], as_object: bool) -> int:
    """Print why there is no plan; returns the exit status."""
    print(rejected(problems), file=sys.stderr)
    if as_object:
        print(json.dumps({"fits": False, "problems": problems}, indent=2))
    return 2


def _runs(command: Arguments, platform: str) -> dict[str, DictConfig]:
    """Return the configuration of the run, or of each stage by its name.

    Raises:
        ConfigurationError: a setting of the whole is wrong.
        SettingsError: a setting of the method is wrong.
    """
    config = command.compose(platform)
    require_none(schema.problems(config))
    stages = {stage.folder: of_stage.compose(platform) for stage, of_stage in stage_arguments(command, config)}
    return stages or {"": config}


def _plan(config: DictConfig, gpu: hardware.Accelerator | None, arguments: argparse.Namespace, stage: str) -> Plan:
    try:
        return make_plan(
            config,
            gpu,
            arguments.response_tokens,
            transformer_engine=not arguments.local_spec,
            machine_memory=int(arguments.memory * (1 << 30)) if arguments.memory else None,
            preparation=arguments.prepare,
        )
    except ConfigurationError as error:
        if not stage:
            raise
        raise ConfigurationError("\n".join(f"stage {stage}: {line}" for line in str(error).splitlines())) from error


def _compare(
    command: Arguments,
    platform: str,
    runs: Mapping[str, DictConfig],
    gpu: hardware.Accelerator | None,
    arguments: argparse.Namespace,
) -> int:
    """Print the layouts of a run, or of each stage.

    Returns:
        The exit status: 0 if one fits, in each stage.

    Raises:
        ConfigurationError: training rejects all layouts of a stage.
    """
    found: dict[str, list[layouts.Layout]] = {}
    for name, config in runs.items():

        def make(overrides: Sequence[str], name: str = name) -> Plan:
            changed = _runs(command.with_overrides([*command.overrides, *overrides]), platform)
            return _plan(changed[name], gpu, arguments, name)

        if name and not arguments.json:
            print(f"stage {name}")
        found[name] = layouts.compare(config, make)
        if all(layout.plan is None for layout in found[name]):
            require_none(layouts.causes(found[name]))
        if not arguments.json:
            layouts.show(found[name], _console())
    if arguments.json:
        objects = {name: layouts.as_json(of_run) for name, of_run in found.items()}
        print(json.dumps(objects.get("", objects), indent=2))
    fitting = [any(layout.plan is not None and layout.plan.fits for layout in of_run) for of_run in found.values()]
    return 0 if all(fitting) else 1


def _trace(config: DictConfig, plan: Plan, preparation: Preparation | None) -> list[tracing.Traced]:
    """Trace a run.

    Raises:
        TraceError: the trace cannot follow the configuration, or the engine does not build.
    """
    if problem := next(tracing.unsupported(config), None):
        raise TraceError(problem)
    return tracing.trace_job(config, plan.job, load_config(config.actor_rollout_ref.model.path, preparation)[0])


def _print(plans: dict[str, Plan], traces: dict[str, list[tracing.Traced]], arguments: argparse.Namespace) -> None:
    """Print the plan and the trace of a run, or of each stage by its name."""
    if arguments.json:
        objects = {}
        for name, plan in plans.items():
            traced = {"trace": [tracing.as_json(rank) for rank in traces[name]]} if name in traces else {}
            objects[name] = as_json(plan) | traced
        print(json.dumps(objects.get("", objects), indent=2))
        return
    console = _console()
    for name, plan in plans.items():
        if name:
            console.rule(f"stage {name}")
        show(plan, console, arguments.time_limit)
        for rank in traces.get(name, ()):
            show_trace(rank, console)
    if len(plans) > 1:
        console.rule("all stages")
        show_total(plans, console)


def _console() -> Console:
    """Return the standard output. Outside of a terminal rich assumes 80 columns, which is narrower than the tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


if __name__ == "__main__":
    sys.exit(main())
