"""A whole plan from a composed configuration."""

from omegaconf import DictConfig

from ..checks import batch_problems, divisibility_problems, settings_problems
from ..model_support import positions_problem
from . import hardware
from .advice import Budget, changes, largest_token_budget, problems
from .job import Job, read
from .report import Plan
from .shapes import Preparation
from .uncounted import uncounted


def make_plan(
    config: DictConfig,
    gpu: hardware.Accelerator | None,
    response_tokens: float | None,
    transformer_engine: bool | None = None,
    machine_memory: int | None = None,
    preparation: Preparation | None = None,
) -> Plan:
    """Judge `config`.

    Args:
        gpu: what the run would have; ignored on CPU.
        response_tokens: mean length of a response; None: half of the longest.
        machine_memory: bytes of host memory; None: on CPU what is available now, on GPUs no limit.
        preparation: stands for the model's folder while that is missing.

    Raises:
        UnknownModel: the model's shape is not known.
    """
    job = read(config, transformer_engine, preparation)
    response_tokens = response_tokens or job.batches.response_tokens / 2
    # A micro-batch of the local spec is padded to its longest sequence.
    mean = job.batches.prompt_tokens / 2 + response_tokens
    padding = max(1.0, (job.batches.prompt_tokens + job.batches.response_tokens) / mean)
    if job.cuda:
        budget = Budget.of_gpu(gpu.memory, padding, machine_memory)
    else:
        gpu, budget = None, Budget.of_machine(machine_memory or hardware.available_memory(), padding)
    too_much = problems(job, budget)
    return Plan(
        job=job,
        budget=budget,
        accelerator=gpu,
        response_tokens=response_tokens,
        refused=_refused(config, job),
        too_much=too_much,
        token_budget=largest_token_budget(job, budget),
        steps=changes(job, budget) if too_much else [],
        uncounted=uncounted(config),
    )


def _refused(config: DictConfig, job: Job) -> list[str]:
    """What training refuses before it looks at memory."""
    checks = [settings_problems(config)]
    if job.shape.positions is not None:  # before what such lengths need besides, as in training
        checks.append(positions_problem(config.actor_rollout_ref.rollout.max_model_len, job.shape.positions))
    checks += [batch_problems(config), divisibility_problems(config, job.shape)]
    return [problem for check in checks for problem in check]
