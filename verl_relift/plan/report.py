"""Shows a plan as tables and as JSON."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from ..checks import counted, rejected
from . import flops, memory
from .advice import Budget, Step, fits, gib, way_out
from .hardware import Accelerator
from .job import Job
from .tracing import Traced

STOPS_BEFORE = 1800  # seconds before a time limit at which examples/slurm stops a run

ASSUMED = (
    "Assumed: {context} for contexts and NCCL, {graphs} for CUDA graphs, {asleep} kept by a sleeping vLLM, "
    "{fragmentation:.0%} lost to fragmentation."
)


@dataclass(frozen=True)
class Plan:
    """The verdict on a configuration that training accepts but for its memory.

    Attributes:
        job: the job that the configuration describes.
        budget: the memory to plan for.
        accelerator: the GPU; None on CPU.
        response_tokens: assumed mean length of a response.
        too_much: what does not fit.
        token_budget: the largest token budget that fits, or None.
        steps: changes that help.
        uncounted: settings that the figures are without.
        notes: what the plan stands on that is not there, such as the model's folder.
    """

    job: Job
    budget: Budget
    accelerator: Accelerator | None
    response_tokens: float
    too_much: list[str]
    token_budget: int | None
    steps: list[Step]
    uncounted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return not self.too_much

    @property
    def steps_suffice(self) -> bool:
        """Whether the job fits after all changes."""
        return not self.too_much or (bool(self.steps) and fits(self.steps[-1].job, self.budget))


def show(plan: Plan, console: Console, time_limit: float | None = None) -> None:
    """Print a plan.

    Args:
        plan: the plan.
        console: where to print.
        time_limit: hours of a job; None: there is no limit.
    """
    for line in (*plan.notes, *_head(plan)):
        console.print(line, markup=False, soft_wrap=True)
    console.print(_memory_table(plan))
    console.print(_work_table(plan))
    for line in (*_run_lines(plan), *_limit_lines(plan, time_limit), *_memory_lines(plan)):
        console.print(line, markup=False, soft_wrap=True)
    for setting in plan.uncounted:
        console.print(f"plan does not know {setting}: its figures are without it", markup=False, soft_wrap=True)
    known = ", as far as plan knows" if plan.uncounted else ""
    console.print(f"[bold green]fits{known}[/]" if plan.fits else f"[bold red]does not fit{known}[/]")
    if not plan.fits:
        _show_advice(plan, console)


def _head(plan: Plan) -> Iterator[str]:
    """Yield what is planned."""
    job, training, rollout = plan.job, plan.job.training, plan.job.rollout
    yield f"model     {job.shape.parameters:,} parameters ({job.shape_source})"
    where = f"{job.nodes} x {job.gpus_per_node} {plan.accelerator.name if plan.accelerator else 'CPU ranks'}"
    layout = (
        f"tensor {training.tensor} x pipeline {training.pipeline} x context {training.context} x data {training.data}"
    )
    layers = "Transformer Engine" if training.transformer_engine else "local layer spec"
    yield f"training  {where}: {layout}; {layers}"
    replicas = counted(job.gpus // (rollout.tensor * rollout.pipeline), "vLLM replica")
    purpose = "" if training.rollouts else ", for validation only"
    yield f"rollout   {replicas} of tensor {rollout.tensor}{purpose}"


def _memory_lines(plan: Plan) -> Iterator[str]:
    """Yield what is said of memory beside the table."""
    job = plan.job
    yield _cache_line(plan)
    if plan.token_budget:
        yield (
            f"largest actor_rollout_ref.actor.ppo_max_token_len_per_gpu that fits: {plan.token_budget} "
            f"(configured: {job.training.token_budget})"
        )
    if plan.accelerator is None:
        return
    if job.length.save_every is None:
        job = replace(job, training=replace(job.training, saves=True))
    save, resume, offloaded = memory.save_on_node(job), memory.resume_on_node(job), memory.offloaded_on_node(job)
    yield (
        f"host memory of a node: {gib(save)} to save a checkpoint, {gib(resume)} to resume from it"
        f"{f', {gib(offloaded)} for what is offloaded' if offloaded else ''}"
    )
    yield ASSUMED.format(
        context=gib(memory.CUDA_CONTEXT),
        graphs=gib(memory.CUDA_GRAPHS),
        asleep=gib(memory.VLLM_ASLEEP),
        fragmentation=memory.FRAGMENTATION,
    )


def _show_advice(plan: Plan, console: Console) -> None:
    console.print(rejected(plan.too_much), markup=False, soft_wrap=True)
    if plan.steps:
        console.print("make these changes, in this order:")
    for number, step in enumerate(plan.steps, 1):
        console.print(f"  {number}. {step.reason}:", markup=False, soft_wrap=True)
        for override in step.overrides:
            console.print(f"     {override}", markup=False, soft_wrap=True)
    if not plan.steps_suffice:
        console.print(way_out(plan.job, plan.budget, plan.steps), markup=False, soft_wrap=True)


def _memory_table(plan: Plan) -> Table:
    phases = plan.budget.phases(plan.job)
    where = "per GPU" if plan.accelerator else "on the machine"
    usable = plan.budget.usable(plan.job)
    table = Table(title=f"memory {where}, GiB; {gib(usable)} usable of {gib(plan.budget.memory)}", title_justify="left")
    table.add_column("part")
    for phase in phases:
        table.add_column(phase.name, justify="right")
    names = list(dict.fromkeys(name for phase in phases for name in phase.parts))
    for name in names:
        if any(phase.parts.get(name) for phase in phases):
            table.add_row(name, *(_cell(phase.parts.get(name, 0)) for phase in phases))
    table.add_section()
    table.add_row("sum", *(_cell(phase.total, phase.total > usable) for phase in phases))
    return table


def _cell(size: int, too_large: bool = False) -> str:
    if not size:
        return ""
    text = f"{size / memory.GIB:.2f}"
    return f"[bold red]{text}[/]" if too_large else text


def _work_table(plan: Plan) -> Table:
    work = flops.step(plan.job, plan.accelerator, plan.response_tokens)
    title = f"one step, mean response {plan.response_tokens:.0f} tokens"
    table = Table(title=title, title_justify="left", caption_justify="left")
    timed = any(stage.seconds is not None for stage in work)
    for name in ("stage", "tokens", "PFLOP", *(["seconds"] if timed else [])):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in work:
        seconds = [_seconds(stage.seconds)] if stage.seconds is not None else []
        table.add_row(stage.name, f"{stage.tokens:,}", f"{stage.flops / 1e15:,.3g}", *seconds)
    if timed:
        table.add_section()
        table.add_row("sum", "", "", _seconds(sum(stage.seconds or 0.0 for stage in work)))
        pipeline = "; pipeline stages wait while it fills and empties" if plan.job.training.pipeline > 1 else ""
        table.caption = (
            f"seconds assume {flops.MFU_UPDATE:.0%} of peak FLOP/s in updates, {flops.MFU_LOG_PROBS:.0%} in log-probs, "
            f"{flops.BANDWIDTH_DECODE:.0%} of the memory bandwidth in decoding, no stragglers and no "
            f"communication{pipeline}"
        )
    return table


def _run_lines(plan: Plan) -> Iterator[str]:
    """Yield what the whole run takes: time, and room for its checkpoints."""
    length, each = plan.job.length, memory.checkpoint_on_disk(plan.job)
    seconds = _run_seconds(plan)
    if seconds is not None:
        yield f"{length.steps} steps: {_duration(seconds)}, without validations and saves"
    if length.save_every is None:
        yield f"checkpoints: trainer.save_freq=-1, none is due; SIGUSR1 still saves one, of {gib(each)}"
        return
    if length.kept is None:
        yield f"checkpoints: {gib(each)} each, all kept (trainer.max_actor_ckpt_to_keep=null)"
        return
    which = "all, " if length.kept == length.saved else ""
    keep = "null" if length.keep is None else length.keep
    # A checkpoint is complete before an old one is removed.
    more = " and room for one more while it saves" if length.kept != length.saved else ""
    yield (
        f"checkpoints: {gib(each)} each, {length.kept} kept ({which}trainer.max_actor_ckpt_to_keep={keep}): "
        f"{gib(each * length.kept)} on disk{more}"
    )


def _run_seconds(plan: Plan) -> float | None:
    """Return the seconds of all steps; None if their number or the GPU's speed is not known."""
    work = flops.step(plan.job, plan.accelerator, plan.response_tokens)
    if plan.job.length.steps is None or not work or any(stage.seconds is None for stage in work):
        return None
    return plan.job.length.steps * sum(stage.seconds for stage in work)


def _limit_lines(plan: Plan, hours: float | None) -> Iterator[str]:
    """Yield what a time limit means for the run."""
    seconds = _run_seconds(plan)
    if hours is None:
        return
    if seconds is None:
        yield "--time-limit: the length of the run is not known (trainer.total_training_steps, the GPU's speed)"
        return
    jobs = math.ceil(seconds / (hours * 3600 - STOPS_BEFORE))
    yield (
        f"with a time limit of {hours:g} h: {counted(jobs, 'job')}, of which each stops {_duration(STOPS_BEFORE)} "
        "before it (examples/slurm); more with what is not counted"
    )
    step = seconds / plan.job.length.steps
    if step > STOPS_BEFORE:
        yield f"a step takes {_duration(step)}, longer than that: send the signal earlier (#SBATCH --signal)"


def show_total(plans: Mapping[str, Plan], console: Console) -> None:
    """Print what several stages take together, as far as it is known."""
    each = [(_run_seconds(plan), plan.job.length.kept) for plan in plans.values()]
    time = [seconds for seconds, _ in each if seconds is not None]
    disk = [memory.checkpoint_on_disk(plan.job) * (plan.job.length.kept or 0) for plan in plans.values()]
    said = []
    if len(time) == len(plans):
        said.append(f"{_duration(sum(time))}, without validations and saves")
    if all(kept is not None for _, kept in each):
        said.append(f"{gib(sum(disk))} of checkpoints on disk")
    if said:
        console.print(f"all stages: {'; '.join(said)}", markup=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    if hours > 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{seconds / 60:.3g} min"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _cache_line(plan: Plan) -> str:
    job = plan.job
    cache = max(0, memory.kv_cache(job, plan.budget.memory))
    tokens = cache // memory.kv_bytes_per_token(job)
    size = memory.kv_bytes_per_token(job) / 1024
    return (
        f"KV cache of a vLLM replica: {tokens:,} tokens ({size:.0f} KiB per token and GPU), "
        f"{tokens // job.rollout.max_model_len} concurrent sequences of {job.rollout.max_model_len}"
    )


def show_trace(traced: Traced, console: Console, allocations: int = 12) -> None:
    """Print the trace of a rank.

    Args:
        traced: the trace.
        console: where to print.
        allocations: how many of those at the peak.
    """
    rank = f"rank {traced.work.rank} of {traced.work.world_size}"
    stage = f", pipeline stage {traced.stage}" if traced.work.pipeline_size > 1 else ""
    table = Table(title=f"traced: the real engine as {rank}{stage}, GiB", title_justify="left")
    table.add_column("part")
    phases = [name for name in traced.planned if name in traced.phases]
    for name in phases:
        table.add_column(name, justify="right")
    parts = {name: traced.phases[name]["device"]["parts"] for name in phases}
    for part in dict.fromkeys(part for of_phase in parts.values() for part in of_phase):
        table.add_row(part, *(_cell(parts[name].get(part, 0)) for name in phases))
    table.add_section()
    table.add_row("traced", *(_cell(traced.peak(name)) for name in phases))
    table.add_row("planned", *(_cell(sum(traced.planned[name].values())) for name in phases))
    table.add_row("planned / traced", *(f"{traced.difference(name):+.1%}" for name in phases))
    console.print(table)
    console.print(f"largest allocations at the peak, {traced.largest}:")
    for allocation in traced.phases[traced.largest]["device"]["allocations"][:allocations]:
        size, part = allocation["bytes"] / memory.GIB, allocation["part"]
        console.print(f"  {size:7.2f} GiB  {part:<16}  {allocation['site']}", markup=False)
    console.print(f"a checkpoint takes {gib(traced.peak('checkpoint', 'host'))} of host memory in this rank")
    if traced.sync is not None:
        sync = traced.sync
        console.print(
            f"weights go to vLLM in {sync['buckets']} buckets: {sync['tensors']} tensors, {gib(sync['bytes'])}, the "
            f"largest {gib(sync['largest'])}; {sync['direct']} are larger than a bucket and go alone"
        )
    console.print(f"traced in {traced.seconds:.0f} s with {gib(traced.process)}")


def as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON types, in bytes, tokens, FLOPs and seconds."""
    job = plan.job
    return {
        "fits": plan.fits,
        "problems": plan.too_much,
        "notes": plan.notes,
        "not_counted": plan.uncounted,
        "changes": [{"overrides": list(step.overrides), "reason": step.reason} for step in plan.steps],
        "changes_suffice": plan.steps_suffice,
        "model": {"parameters": job.shape.parameters, "source": job.shape_source, **asdict(job.shape)},
        "training": asdict(job.training),
        "rollout": asdict(job.rollout),
        "memory": {
            "of": "gpu" if plan.accelerator else "machine",
            "size": plan.budget.memory,
            "usable": plan.budget.usable(job),
            "phases": {phase.name: {**phase.parts, "sum": phase.total} for phase in plan.budget.phases(job)},
        },
        "run": {"steps": job.length.steps, "seconds": _run_seconds(plan)},
        "checkpoints": {"saved": job.length.saved, "kept": job.length.kept, "bytes": memory.checkpoint_on_disk(job)},
        "checkpoint_host_memory_of_node": memory.checkpoint_on_node(job),
        "offloaded_host_memory_of_node": memory.offloaded_on_node(job),
        "kv_cache_tokens": max(0, memory.kv_cache(job, plan.budget.memory)) // memory.kv_bytes_per_token(job),
        "largest_token_budget": plan.token_budget,
        "mean_response_tokens": plan.response_tokens,
        "work": [asdict(stage) for stage in flops.step(job, plan.accelerator, plan.response_tokens)],
    }
