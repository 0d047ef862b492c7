"""Predict whether a run fits: `python -m verl_relift.plan [--config-name NAME] [--gpu h100] [--json] key=value ...`

Composes the same configuration as `verl_relift.train` from the same arguments. Without a GPU and without importing
torch, vLLM or Ray, it prints memory by part and phase, tokens and FLOPs of a step, the largest micro-batch that fits,
and what to change if the run does not fit. Exit status: 0: the run fits, 1: it does not fit, 2: invalid arguments.
"""

import argparse
import json
import sys

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ..run.composition import Arguments
from ..run.environment import detect_platform, prepare_environment
from ..settings import SettingsError
from ..stages import stage_arguments
from . import hardware
from .planner import make_plan
from .report import Plan, as_json, show
from .shapes import UnknownModel


def _parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m verl_relift.plan", description="Predict the memory, tokens and FLOPs of a run before it starts."
    )
    parser.add_argument("--config-name", default="relift", help="as in verl_relift.train; default %(default)s")
    parser.add_argument("--config-dir", help="folder with your own configuration")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--gpu", choices=sorted(hardware.KNOWN), help="plan for this GPU instead of the one found here")
    size.add_argument("--gpu-memory", type=float, metavar="GIB", help="plan for a GPU with this much memory")
    parser.add_argument(
        "--memory", type=float, metavar="GIB", help="on CPU: plan for this much memory; default: available"
    )
    parser.add_argument("--response-tokens", type=float, help="mean response length; default: half of the longest")
    parser.add_argument("--local-spec", action="store_true", help="on CUDA: plan without Transformer Engine")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in verl_relift.train")
    arguments = parser.parse_intermixed_args()
    wrong = [override for override in arguments.overrides if "=" not in override]
    if wrong:
        parser.error(f"{wrong[0]!r} is not of the form key=value")
    return arguments, arguments.overrides


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
        config = command.compose(platform)
        if config.trainer.device == "cuda" and gpu is None:
            print("no GPU found on this machine; name one with --gpu or --gpu-memory", file=sys.stderr)
            return 2
        runs = [(stage.folder, of_stage.compose(platform)) for stage, of_stage in stage_arguments(command, config)]
        plans = {
            name: make_plan(
                of_run,
                gpu,
                arguments.response_tokens,
                transformer_engine=not arguments.local_spec,
                machine_memory=int(arguments.memory * (1 << 30)) if arguments.memory else None,
            )
            for name, of_run in runs or [("", config)]
        }
    except (HydraException, OmegaConfBaseException, UnknownModel, SettingsError) as error:
        print(str(error).strip(), file=sys.stderr)
        return 2
    _print(plans, arguments.json)
    return 0 if all(plan.fits for plan in plans.values()) else 1


def _print(plans: dict[str, Plan], as_object: bool) -> None:
    """Print the plan of a run, or of each stage by its name."""
    if as_object:
        objects = {name: as_json(plan) for name, plan in plans.items()}
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


if __name__ == "__main__":
    sys.exit(main())
