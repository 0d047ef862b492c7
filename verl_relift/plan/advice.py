"""Does it fit; with which micro-batch; and if not, what to change."""

from dataclasses import dataclass, replace

from omegaconf import DictConfig

from . import hardware, memory
from .job import Job, Recompute, read
from .memory import GIB, Phase
from .shapes import UnknownModel

_ACTOR = "actor_rollout_ref.actor"
_ROLLOUT = "actor_rollout_ref.rollout"
_BUDGET_STEP = 512


@dataclass(frozen=True)
class Budget:
    """Memory there is, in bytes, and how the arithmetic takes it."""

    memory: int  # of a GPU, or of the machine on CPU
    padding: float = 1.0
    heap_factor: float = memory.HEAP_FACTOR

    @classmethod
    def of_gpu(cls, size: int, padding: float = 1.0) -> "Budget":
        return cls(size, padding)

    @classmethod
    def of_machine(cls, size: int, padding: float = 1.0) -> "Budget":
        factor = memory.HEAP_FACTOR_MMAP if hardware.frees_at_once() else memory.HEAP_FACTOR
        return cls(size, padding, factor)

    def usable(self, job: Job) -> int:
        return int(self.memory * (1 - memory.FRAGMENTATION)) if job.cuda else self.memory

    def phases(self, job: Job) -> list[Phase]:
        return memory.phases(job, self.memory, self.padding, self.heap_factor)


def problems(job: Job, budget: Budget) -> list[str]:
    """What memory and lengths refuse, one line each; empty: it fits."""
    found = list(_lengths(job))
    where = "a GPU" if job.cuda else "this machine"
    usable = budget.usable(job)
    if job.cuda:
        # vLLM wants its share free when it starts.
        cache, longest = memory.kv_cache(job, budget.memory), job.rollout.max_model_len
        needed = longest * memory.kv_bytes_per_token(job)
        if cache < needed:
            found.append(
                f"{_ROLLOUT}.gpu_memory_utilization={job.rollout.gpu_memory_utilization} of {gib(budget.memory)} "
                f"leaves {gib(max(0, cache))} for vLLM's KV cache; one sequence of {longest} tokens needs "
                f"{gib(needed)}; raise it, or {_ROLLOUT}.tensor_model_parallel_size"
            )
    worst = max(budget.phases(job), key=lambda phase: phase.total)
    if worst.total > usable:
        largest = sorted(worst.parts.items(), key=lambda part: -part[1])[:3]
        found.append(
            f"{worst.name} needs {gib(worst.total)}, {where} has {gib(usable)} to give "
            f"({', '.join(f'{name} {gib(size)}' for name, size in largest)}); "
            "`python -m verl_relift.plan` with the same arguments says what to change"
        )
    return found


def _lengths(job: Job):
    """Limits that verl and vLLM assert in the middle of a run."""
    training, batches = job.training, job.batches
    rl, sft = batches.prompt_tokens + batches.response_tokens, batches.prompt_tokens + batches.demonstration_tokens
    keys = [(f"{_ACTOR}.ppo_max_token_len_per_gpu", training.token_budget, rl, "prompt and response")]
    if training.log_probs or training.reference:
        key = f"{_ROLLOUT}.log_prob_max_token_len_per_gpu"
        keys.append((key, training.log_prob_token_budget, rl, "prompt and response"))
    if training.supervised:
        key = "relift.sft.max_token_len_per_gpu"
        if training.sft_token_budget == training.token_budget:
            key = f"{_ACTOR}.ppo_max_token_len_per_gpu"
        keys.append((key, training.sft_token_budget, sft, "prompt and demonstration"))
    for key, budget, longest, what in keys:
        if budget * training.context < longest:
            yield (
                f"{key}={budget} x context_parallel_size={training.context} is less than the longest {what}, "
                f"{longest} tokens, which must fit into a micro-batch; raise it to {-(-longest // training.context)}"
            )
    largest = job.shape.largest_tensor * training.element_bytes
    if not job.cuda and largest > job.rollout.bucket_bytes:
        yield (
            f"{_ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes={job.rollout.bucket_bytes >> 20}: on CPU "
            f"the largest weight, {largest >> 20} MiB, must fit; raise it to {-(-largest // (1 << 20))}"
        )


def fits(job: Job, budget: Budget) -> bool:
    return not problems(job, budget)


def largest_token_budget(job: Job, budget: Budget, limit: int = 1 << 18) -> int | None:
    """The largest `ppo_max_token_len_per_gpu`, in steps of 512, with which the RL update fits; None: none does.

    The supervised update and the log-probs follow it where they follow it in the configuration.
    """
    low, high = 0, limit // _BUDGET_STEP
    while low < high:
        middle = (low + high + 1) // 2
        if fits(with_token_budget(job, middle * _BUDGET_STEP), budget):
            low = middle
        elif _too_short(job, middle * _BUDGET_STEP):
            # Below the longest sequence nothing is accepted; what is too large is found above.
            low = middle
        else:
            high = middle - 1
    best = low * _BUDGET_STEP
    return best if best and fits(with_token_budget(job, best), budget) else None


def _too_short(job: Job, tokens: int) -> bool:
    return tokens * job.training.context < job.batches.longest


def with_token_budget(job: Job, tokens: int) -> Job:
    """``job`` with another `ppo_max_token_len_per_gpu`, and whatever is equal to it in the configuration."""
    old = job.training
    follow = {
        name: tokens if getattr(old, name) == old.token_budget else getattr(old, name)
        for name in ("sft_token_budget", "log_prob_token_budget")
    }
    return replace(job, training=replace(old, token_budget=tokens, **follow))


@dataclass(frozen=True)
class Step:
    """One change and what the run would need with it and those before it."""

    overrides: tuple[str, ...]
    reason: str
    job: Job


def changes(job: Job, budget: Budget) -> list[Step]:
    """Changes to make, in this order and one on top of the other, until the job fits; as many as help.

    Cheapest first: what costs no speed, then recomputation, then offloading, then more GPUs a replica.
    """
    taken: list[Step] = []
    for candidate in _candidates:
        if fits(job, budget):
            break
        step = candidate(job, budget)
        if step is None:
            continue
        before = max(phase.total for phase in budget.phases(job))
        after = max(phase.total for phase in budget.phases(step.job))
        if len(problems(step.job, budget)) < len(problems(job, budget)) or after < before:
            taken.append(step)
            job = step.job
    return taken


def _training(job: Job, **changed) -> Job:
    return replace(job, training=replace(job.training, **changed))


def _raise_budget(job: Job, budget: Budget) -> Step | None:
    needed = -(-job.batches.longest // job.training.context)
    if job.training.token_budget >= needed:
        return None
    return Step((f"{_ACTOR}.ppo_max_token_len_per_gpu={needed}",), "longest sequence", with_token_budget(job, needed))


def _raise_bucket(job: Job, budget: Budget) -> Step | None:
    needed = -(-job.shape.largest_tensor * job.training.element_bytes // (1 << 20))
    if job.cuda or job.rollout.bucket_bytes >= needed << 20:
        return None
    key = f"{_ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes={needed}"
    return Step((key,), "largest weight", replace(job, rollout=replace(job.rollout, bucket_bytes=needed << 20)))


def _smaller_budget(job: Job, budget: Budget) -> Step | None:
    needed = -(-job.batches.longest // job.training.context)
    best = largest_token_budget(job, budget) or needed
    if best >= job.training.token_budget:
        return None
    key = f"{_ACTOR}.ppo_max_token_len_per_gpu={best}"
    return Step((key,), "smaller micro-batches, more of them", with_token_budget(job, best))


def _recompute(job: Job, budget: Budget) -> Step | None:
    if job.training.recompute.granularity == "full":
        return None
    key = f"{_ACTOR}.megatron.override_transformer_config.recompute"
    overrides = (f"{key}_granularity=full", f"{key}_method=uniform", f"{key}_num_layers=1")
    changed = _training(job, recompute=Recompute("full", (), "uniform", 1))
    return Step(overrides, "activations again in the backward pass: a third more work in updates", changed)


def _offload_optimizer(job: Job, budget: Budget) -> Step | None:
    if job.training.optimizer_offload or not job.cuda:
        return None
    key = f"{_ACTOR}.megatron.optimizer_offload=true"
    return Step((key,), "optimizer in host memory during rollouts", _training(job, optimizer_offload=True))


def _offload_weights(job: Job, budget: Budget) -> Step | None:
    if job.training.param_offload or not job.cuda:
        return None
    key = f"{_ACTOR}.megatron.param_offload=true"
    reason = "weights in host memory and no gradients during rollouts"
    return Step((key,), reason, _training(job, param_offload=True))


def _less_cache(job: Job, budget: Budget) -> Step | None:
    for share in (0.7, 0.6, 0.5, 0.4, 0.3, 0.2):
        changed = replace(job, rollout=replace(job.rollout, gpu_memory_utilization=share))
        if job.cuda and share < job.rollout.gpu_memory_utilization and fits(changed, budget):
            return Step((f"{_ROLLOUT}.gpu_memory_utilization={share}",), "smaller KV cache", changed)
    return None


def _more_cache(job: Job, budget: Budget) -> Step | None:
    for share in (0.4, 0.5, 0.6, 0.7, 0.8):
        changed = replace(job, rollout=replace(job.rollout, gpu_memory_utilization=share))
        if job.cuda and share > job.rollout.gpu_memory_utilization and fits(changed, budget):
            return Step((f"{_ROLLOUT}.gpu_memory_utilization={share}",), "room for vLLM's KV cache", changed)
    return None


def _more_tensor_parallel(job: Job, budget: Budget) -> Step | None:
    training, shape = job.training, job.shape
    tensor = 2 * training.tensor
    sizes = (shape.num_attention_heads, shape.num_key_value_heads, shape.intermediate_size, shape.vocab_size)
    if training.data % 2 or tensor > job.gpus_per_node or any(size % tensor for size in sizes):
        return None
    changed = _training(job, tensor=tensor, data=training.data // 2, sequence_parallel=True)
    key = f"{_ACTOR}.megatron.tensor_model_parallel_size={tensor}"
    return Step((key,), "half of weights, activations and logits a GPU", changed)


def _more_pipeline_parallel(job: Job, budget: Budget) -> Step | None:
    training = job.training
    pipeline = 2 * training.pipeline
    if training.data % 2 or job.shape.num_hidden_layers % pipeline:
        return None
    changed = _training(job, pipeline=pipeline, data=training.data // 2)
    return Step((f"{_ACTOR}.megatron.pipeline_model_parallel_size={pipeline}",), "half of the layers a GPU", changed)


_candidates = (
    _raise_budget,
    _raise_bucket,
    _smaller_budget,
    _offload_optimizer,
    _recompute,
    _smaller_budget,
    _offload_weights,
    _less_cache,
    _more_cache,
    _more_tensor_parallel,
    _smaller_budget,
    _more_tensor_parallel,
    _smaller_budget,
    _more_pipeline_parallel,
    _less_cache,
    _more_cache,
    _more_pipeline_parallel,
    _smaller_budget,
)


def refusals(config: DictConfig) -> list[str]:
    """Why the run that ``config`` describes cannot fit on the hardware of this machine, one line each.

    On CUDA against the smallest GPU that ``nvidia-smi`` lists: a head node without GPUs refuses nothing. On CPU
    against the memory that is available. A model whose shape is not modelled is not refused.
    """
    try:
        job = read(config)
    except UnknownModel:
        return []
    if job.cuda:
        gpu = hardware.visible_gpu()
        return problems(job, Budget.of_gpu(gpu.memory)) if gpu else []
    return problems(job, Budget.of_machine(hardware.available_memory()))


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
