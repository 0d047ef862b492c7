"""What the same run takes with other tensor and pipeline parallel sizes: `python -m verl_relift.plan --layouts`"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from ..checks import ConfigurationError, shortened
from ..settings import SettingsError
from . import memory
from .report import Plan

_ENGINE = "actor_rollout_ref.actor.megatron"


@dataclass(frozen=True)
class Layout:
    """A pair of sizes, and the plan with it.

    Attributes:
        tensor: tensor parallel size.
        pipeline: pipeline parallel size.
        plan: of the run with these sizes; None if training rejects them.
        problem: why it does, in a line.
    """

    tensor: int
    pipeline: int
    plan: Plan | None
    problem: str = ""


def compare(config: DictConfig, make: Callable[[Sequence[str]], Plan]) -> list[Layout]:
    """Plan a run with every tensor parallel size of a node, and every pipeline parallel size of all GPUs.

    Args:
        config: of the run.
        make: plans the run with overrides added.
    """
    layouts = []
    for tensor, pipeline in _sizes(config):
        overrides = [
            f"{_ENGINE}.tensor_model_parallel_size={tensor}",
            f"{_ENGINE}.pipeline_model_parallel_size={pipeline}",
        ]
        try:
            layouts.append(Layout(tensor, pipeline, make(overrides)))
        except (ConfigurationError, SettingsError) as error:
            layouts.append(Layout(tensor, pipeline, None, str(error).splitlines()[0]))
    return layouts


def _sizes(config: DictConfig) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose product divides the GPUs. Tensor parallelism across nodes would wait for the network."""
    trainer, context = config.trainer, config.actor_rollout_ref.actor.megatron.context_parallel_size
    gpus = trainer.n_gpus_per_node * trainer.nnodes // context
    for tensor in (size for size in range(1, trainer.n_gpus_per_node + 1) if trainer.n_gpus_per_node % size == 0):
        for pipeline in range(1, gpus // tensor + 1):
            if gpus % (tensor * pipeline) == 0:
                yield tensor, pipeline


def causes(layouts: Sequence[Layout]) -> list[str]:
    """Return why training rejects all layouts: what no sizes mend, else what is against each of the sizes."""
    problems = list(dict.fromkeys(layout.problem for layout in layouts))
    return [problem for problem in problems if not problem.startswith(_ENGINE)] or problems


def show(layouts: Sequence[Layout], console: Console) -> None:
    """Print the layouts that training accepts as a table, and why it rejects the others."""
    plans = [layout.plan for layout in layouts if layout.plan is not None]
    replica = f"; vLLM keeps tensor {plans[0].job.rollout.tensor}" if plans else ""
    title = f"tensor and pipeline parallel sizes of training{replica}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in ("tensor", "pipeline", "data", "most GiB", "usable", "in", "largest token budget", ""):
        table.add_column(name, justify="left" if name in ("", "in") else "right")
    for layout in layouts:
        if layout.plan is not None:
            table.add_row(str(layout.tensor), str(layout.pipeline), *_cells(layout.plan))
    table.caption = (
        "largest token budget: of actor_rollout_ref.actor.ppo_max_token_len_per_gpu. Seconds differ little by this "
        "arithmetic, which knows no communication: the smallest sizes that fit have the least of it"
    )
    console.print(table)
    for problem in shortened(list(dict.fromkeys(layout.problem for layout in layouts if layout.problem))):
        console.print(f"rejected: {problem}", markup=False, soft_wrap=True)


def as_json(layouts: Sequence[Layout]) -> list[dict[str, Any]]:
    """Return the layouts as JSON types, in bytes and tokens."""
    return [
        {
            "tensor": layout.tensor,
            "pipeline": layout.pipeline,
            "fits": layout.plan is not None and layout.plan.fits,
            "problems": [layout.problem] if layout.plan is None else layout.plan.too_much,
        }
        | ({} if layout.plan is None else _figures(layout.plan))
        for layout in layouts
    ]


def _figures(plan: Plan) -> dict[str, Any]:
    return {
        "data": plan.job.training.data,
        "memory": {phase.name: phase.total for phase in plan.budget.phases(plan.job)},
        "usable": plan.budget.usable(plan.job),
        "largest_token_budget": plan.token_budget,
    }


def _cells(plan: Plan) -> list[str]:
    largest = max(plan.budget.phases(plan.job), key=lambda phase: phase.total)
    return [
        str(plan.job.training.data),
        f"{largest.total / memory.GIB:.1f}",
        f"{plan.budget.usable(plan.job) / memory.GIB:.1f}",
        largest.name,
        f"{plan.token_budget:,}" if plan.token_budget else "none fits",
        "[green]fits[/]" if plan.fits else _without_other_sizes(plan),
    ]


def _without_other_sizes(plan: Plan) -> str:
    """Return what makes a layout fit that does not, if neither of its sizes must change for it."""
    changed = {override.partition("=")[0] for step in plan.steps for override in step.overrides}
    sizes = {f"{_ENGINE}.{name}_model_parallel_size" for name in ("tensor", "pipeline")}
    if not plan.steps_suffice or changed & sizes:
        return "[red]does not fit[/]"
    overrides = [override for step in plan.steps for override in step.overrides]
    # Recomputation has three keys.
    said = [_short(override) for override in overrides if ".recompute_" not in override]
    said += ["full recomputation"] * (len(said) < len(overrides))
    return f"fits with {', '.join(said)}"


def _short(override: str) -> str:
    """Return an override with the last two words of its key, which are enough to know it by."""
    key, _, value = override.partition("=")
    return f"{'.'.join(key.split('.')[-2:])}={value}"
