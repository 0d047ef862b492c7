"""Predict whether a run fits: `python -m verl_relift.plan [--gpu h100] [--trace] [--json] key=value ...`

Composes the same configuration as `verl_relift.train` from the same arguments. Without a GPU and without importing
torch, vLLM or Ray, it prints memory by part and phase, tokens and FLOPs of a step, the largest micro-batch that fits,
and what to change if the run does not fit. With `--trace` it also builds the real training engine, without a GPU and
without its memory, and makes the updates of a step. Exit status: 0: the run fits, 1: it does not fit, 2: invalid
arguments, or the engine does not build.
"""

import argparse
import json
import sys

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from .. import schema
from ..checks import rejected, shortened
from ..run.composition import Arguments
from ..run.environment import detect_platform, prepare_environment
from ..settings import SettingsError
from ..stages import stage_arguments
from ..trace import TraceError
from ..usage import argument_parser
from . import hardware, tracing
from .planner import make_plan
from .report import Plan, as_json, show, show_trace
from .shapes import Preparation, UnknownModel, load_config


def _parse() -> tuple[argparse.Namespace, list[str]]:
    does = "Predict the memory, tokens and FLOPs of a run before it starts."
    parser = argument_parser("verl_relift.plan", does, "key=value ...", "docs/scale.md")
    parser.add_argument("--config-name", default="relift", help="as in verl_relift.train; default %(default)s")
    parser.add_argument("--config-dir", help="folder with your own configuration")
    size = parser.add_mutually_exclusive_group()
    known = "plan for this GPU instead of the one found here"
    size.add_argument("--gpu", type=str.lower, choices=sorted(hardware.KNOWN), help=known)
    size.add_argument("--gpu-memory", type=float, metavar="GIB", help="plan for a GPU with this much memory")
    parser.add_argument(
        "--memory",
        type=float,
        metavar="GIB",
        help="host memory of a machine; default: on CPU what is available, on GPUs no limit",
    )
    parser.add_argument("--response-tokens", type=float, help="mean response length; default: half of the longest")
    parser.add_argument("--local-spec", action="store_true", help="on CUDA: plan without Transformer Engine")
    prepare = "command of data_preprocess.prepare_model that makes the model's folder, planned from it while missing"
    parser.add_argument("--prepare", metavar="COMMAND", type=_preparation, help=prepare)
    parser.add_argument("--trace", action="store_true", help="also make a step with the real engine, without a GPU")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in verl_relift.train")
    arguments = parser.parse_intermixed_args()
    return arguments, arguments.overrides


def _preparation(command: str) -> Preparation:
    try:
        return Preparation.of_command(command)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{command!r}: {error}") from None


def _gpu(arguments: argparse.Namespace) -> hardware.Accelerator | None:
    if arguments.gpu:
        return hardware.KNOWN[arguments.gpu]
    if arguments.gpu_memory:
        return hardware.Accelerator(f"GPU of {arguments.gpu_memory:g} GiB", int(arguments.gpu_memory * (1 << 30)))
    return hardware.visible_gpu()


def main() -> int:
    """Run the command.

    Returns:
        The exit status: 0: the run fits, 1: it does not fit, 2: invalid arguments.
    """
    arguments, overrides = _parse()
    prepare_environment()
    gpu = _gpu(arguments)
    platform = "cuda" if arguments.gpu or arguments.gpu_memory else detect_platform()
    command = Arguments(arguments.config_name, arguments.config_dir, tuple(overrides))
    try:
        config = _compose(command, platform)
        if config.trainer.device == "cuda" and gpu is None:
            print("no GPU found on this machine; name one with --gpu or --gpu-memory", file=sys.stderr)
            return 2
        stages = [(stage.folder, _compose(of_stage, platform)) for stage, of_stage in stage_arguments(command, config)]
        runs = dict(stages) or {"": config}
        plans = {name: _plan(of_run, gpu, arguments) for name, of_run in runs.items()}
        traces = (
            {name: _trace(runs[name], plan, arguments.prepare) for name, plan in plans.items()}
            if arguments.trace
            else {}
        )
    except (HydraException, OmegaConfBaseException) as error:
        print(rejected([schema.refusal(error, overrides, platform)]), file=sys.stderr)
        return 2
    except SettingsError as error:
        print(rejected(str(error).splitlines()), file=sys.stderr)
        return 2
    except (UnknownModel, TraceError) as error:
        print(str(error).strip(), file=sys.stderr)
        return 2
    _print(plans, traces, arguments.json)
    return 0 if all(plan.fits for plan in plans.values()) else 1


def _compose(command: Arguments, platform: str) -> DictConfig:
    """Compose the configuration of a run.

    Raises:
        SettingsError: a key does not exist, or has a value that is not of its kind.
    """
    config = command.compose(platform)
    if problems := list(schema.problems(config)):
        raise SettingsError("\n".join(shortened(problems)))
    return config


def _plan(config: DictConfig, gpu: hardware.Accelerator | None, arguments: argparse.Namespace) -> Plan:
    return make_plan(
        config,
        gpu,
        arguments.response_tokens,
        transformer_engine=not arguments.local_spec,
        machine_memory=int(arguments.memory * (1 << 30)) if arguments.memory else None,
        preparation=arguments.prepare,
    )


def _trace(config: DictConfig, plan: Plan, preparation: Preparation | None) -> list[tracing.Traced]:
    """Trace a run that training would accept.

    Raises:
        TraceError: the trace cannot follow the configuration, or the engine does not build.
    """
    problems = [*plan.refused, *tracing.unsupported(config)]
    if problems:
        raise TraceError(problems[0])
    return tracing.trace_job(config, plan.job, load_config(config.actor_rollout_ref.model.path, preparation)[0])


def _print(plans: dict[str, Plan], traces: dict[str, list[tracing.Traced]], as_object: bool) -> None:
    """Print the plan and the trace of a run, or of each stage by its name."""
    if as_object:
        objects = {}
        for name, plan in plans.items():
            traced = {"trace": [tracing.as_json(rank) for rank in traces[name]]} if name in traces else {}
            objects[name] = as_json(plan) | traced
        print(json.dumps(objects.get("", objects), indent=2))
        return
    from rich.console import Console

    # Outside of a terminal rich assumes 80 columns, which is narrower than the tables.
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=140)
    for name, plan in plans.items():
        if name:
            console.rule(f"stage {name}")
        show(plan, console)
        for rank in traces.get(name, ()):
            show_trace(rank, console)


if __name__ == "__main__":
    sys.exit(main())
