"""Compares the arithmetic with a trace of the real engine (`verl_relift.trace`)."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from omegaconf import DictConfig

from ..trace import Work, trace
from ..trace.work import equal_lengths
from . import memory
from .job import LOG_PROBS, SUPERVISED, UPDATE, Job

# Settings of Megatron that need kernels of Transformer Engine or Apex.
_KERNELS = ("apply_rope_fusion", "gradient_accumulation_fusion", "use_transformer_engine_op_fuser", "fp8")
# Phases of the arithmetic; the trace gives its own the same names.
TRAINING_PHASES = ("log-probs", "RL update", "supervised update")


@dataclass(frozen=True)
class Traced:
    """A rank's trace beside the arithmetic.

    Attributes:
        stage: its pipeline stage.
        work: what it did.
        planned: bytes by phase and part, as computed.
        phases: what `trace.step` measured, by phase and place.
        sync: the weights' way to vLLM; None with several pipeline stages.
        seconds: what tracing took.
        process: resident bytes of the tracing process.
    """

    stage: int
    work: Work
    planned: Mapping[str, Mapping[str, int]]
    phases: Mapping[str, Any]
    sync: Mapping[str, int] | None
    seconds: float
    process: int

    def peak(self, phase: str, place: str = "device") -> int:
        """Return the bytes at the peak of a phase."""
        return self.phases[phase][place]["total"]

    def difference(self, phase: str) -> float:
        """Return by how much the arithmetic exceeds the trace, as a share of the trace."""
        return sum(self.planned[phase].values()) / self.peak(phase) - 1

    @property
    def largest(self) -> str:
        """The phase with the highest peak."""
        return max(self.phases, key=lambda phase: self.peak(phase))


def unsupported(config: DictConfig) -> Iterator[str]:
    """Yield what a trace cannot follow, one line each."""
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    prefix, megatron = "actor_rollout_ref.actor.megatron", actor.megatron
    without = "leave out --trace"
    if model.use_fused_kernels and not config.relift.speed_patches:
        yield (
            "actor_rollout_ref.model.use_fused_kernels=true: --trace cannot run verl's Triton kernels, which "
            f"relift.speed_patches=false leaves in place; {without}"
        )
    if not model.use_remove_padding:
        yield f"actor_rollout_ref.model.use_remove_padding=false: --trace follows packed sequences only; {without}"
    if not actor.use_dynamic_bsz:
        yield f"actor_rollout_ref.actor.use_dynamic_bsz=false: --trace follows token budgets only; {without}"
    if megatron.virtual_pipeline_model_parallel_size not in (None, 1):
        yield f"{prefix}.virtual_pipeline_model_parallel_size: --trace follows stages of one chunk only; {without}"
    if megatron.get("use_megatron_fsdp"):
        yield f"{prefix}.use_megatron_fsdp=true: --trace follows the distributed optimizer only; {without}"
    if megatron.context_parallel_size > 1 and megatron.get("dynamic_context_parallel"):
        yield f"{prefix}.dynamic_context_parallel=true: --trace follows a fixed size only; {without}"
    if actor.optim.override_optimizer_config.get("optimizer_cpu_offload"):
        yield f"actor_rollout_ref.actor.optim.override_optimizer_config.optimizer_cpu_offload: not traced; {without}"
    for name in _KERNELS:
        if megatron.override_transformer_config.get(name):
            yield f"{prefix}.override_transformer_config.{name}: --trace has no stand-in for its kernels; {without}"
    if model.get("lora") and model.lora.get("rank", 0):
        yield f"actor_rollout_ref.model.lora.rank={model.lora.rank}: --trace follows full training only; {without}"


def trace_job(config: DictConfig, job: Job, model: Mapping[str, Any]) -> list[Traced]:
    """Trace one rank of the first and of the last pipeline stage.

    Args:
        config: the composed configuration.
        job: the job that it describes.
        model: contents of the model's `config.json`.

    Raises:
        TraceError: the engine does not build.
    """
    return [trace_rank(config, job, model, stage) for stage in sorted({0, job.training.pipeline - 1})]


def trace_rank(config: DictConfig, job: Job, model: Mapping[str, Any], stage: int) -> Traced:
    """Trace the first rank of a pipeline stage; see `trace_job`."""
    work = _work(job, stage)
    result = trace(config, work, model)
    # The reference model is not traced.
    traced_job = replace(job, training=replace(job.training, reference=False))
    computed = memory.training_parts(traced_job, stage)
    planned = {name: parts for name, parts in computed.items() if name in result["phases"]}
    if not work.own_step and work.supervised and work.update:
        # Both losses are in one update, one after the other.
        planned["RL update"] = max(planned["RL update"], _spliced(job, stage), key=lambda parts: sum(parts.values()))
    return Traced(stage, work, planned, **result)


def _spliced(job: Job, stage: int) -> dict[str, int]:
    return memory.training_parts(replace(job, training=replace(job.training, own_step=True)), stage)[
        "supervised update"
    ]


def _work(job: Job, stage: int) -> Work:
    training = job.training
    first_rank_of_stage = job.gpus // training.pipeline * stage

    def micro_batch(budget: int, purpose: str) -> list[int]:
        return equal_lengths(job.tokens(budget, purpose) * training.context, job.longest(purpose))

    update = micro_batch(training.token_budget, UPDATE) if training.rollouts else []
    supervised = micro_batch(training.sft_token_budget, SUPERVISED) if training.supervised else []
    if not training.own_step and training.pipeline > 1 and update:
        supervised = update if supervised else []  # stages announce one size in an update
    log_probs = training.rollouts and training.log_probs
    return Work(
        rank=first_rank_of_stage,
        world_size=job.gpus,
        data_parallel_size=training.data,
        pipeline_size=training.pipeline,
        micro_batches=min(max(2, training.pipeline), job.fewest_micro_batches),
        transformer_engine=training.transformer_engine,
        update=update,
        supervised=supervised,
        log_probs=micro_batch(training.log_prob_token_budget, LOG_PROBS) if log_probs else [],
        own_step=training.own_step,
        separate_moments=training.separate_optimizer,
    )


def as_json(traced: Traced) -> dict[str, Any]:
    """Return a trace as JSON types, in bytes and seconds."""
    return asdict(traced)
