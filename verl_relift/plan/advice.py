"""Decides whether a job fits, with which micro-batch, and what to change if it does not."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from omegaconf import DictConfig

from . import hardware, memory
from .job import Job, Recompute, read
from .memory import GIB, Phase
from .shapes import UnknownModel

_ACTOR = "actor_rollout_ref.actor"
_ROLLOUT = "actor_rollout_ref.rollout"
_OPTIMIZER = f"{_ACTOR}.optim.override_optimizer_config"
_BUDGET_STEP = 512
_GPUS_OF_A_NODE, _MOST_GPUS = 8, 1024  # which numbers of GPUs are tried


@dataclass(frozen=True)
class Budget:
    """The memory to plan for, and two factors of the arithmetic.

    Attributes:
        memory: bytes of a GPU, or on CPU of the machine.
        padding: padded tokens / tokens, see `memory.activation_elements`.
        heap_factor: see `memory.HEAP_FACTOR`.
        host: bytes of a node's host memory beside its GPUs; None: not judged.
    """

    memory: int
    padding: float = 1.0
    heap_factor: float = memory.HEAP_FACTOR
    host: int | None = None

    @classmethod
    def of_gpu(cls, size: int, padding: float = 1.0, host: int | None = None) -> "Budget":
        """Return the budget of a GPU with `size` bytes in a node with `host` bytes of host memory."""
        return cls(size, padding, host=host)

    @classmethod
    def of_machine(cls, size: int, padding: float = 1.0) -> "Budget":
        """Return the budget of a machine with `size` bytes for all processes."""
        factor = memory.HEAP_FACTOR_MMAP if hardware.frees_at_once() else memory.HEAP_FACTOR
        return cls(size, padding, factor)

    def usable(self, job: Job) -> int:
        """Return the bytes that a job can use."""
        return int(self.memory * (1 - memory.FRAGMENTATION)) if job.cuda else self.memory

    def phases(self, job: Job) -> list[Phase]:
        """Return the phases of a job within this budget."""
        return memory.phases(job, self.memory, self.padding, self.heap_factor)


def problems(job: Job, budget: Budget) -> list[str]:
    """Return the reasons why a job does not fit, one line each; an empty list means that it fits."""
    found = list(_lengths(job))
    where = "a GPU" if job.cuda else "this machine"
    usable = budget.usable(job)
    if job.cuda:
        # vLLM needs its share of the memory free when it starts.
        cache, longest = memory.kv_cache(job, budget.memory), job.rollout.max_model_len
        needed = longest * memory.kv_bytes_per_token(job)
        if cache < needed:
            found.append(
                f"{_ROLLOUT}.gpu_memory_utilization={job.rollout.gpu_memory_utilization} of {gib(budget.memory)} "
                f"leaves {gib(max(0, cache))} for vLLM's KV cache; one sequence of {longest} tokens needs "
                f"{gib(needed)}; increase it, or {_ROLLOUT}.tensor_model_parallel_size"
            )
    found += _checkpoint(job, budget)
    worst = _worst(job, budget)
    if _too_large(job, budget):
        largest = sorted(worst.parts.items(), key=lambda part: -part[1])[:3]
        found.append(
            f"{worst.name} needs {gib(worst.total)}, but {where} has {gib(usable)} usable "
            f"({', '.join(f'{name} {gib(size)}' for name, size in largest)})"
        )
    return found


def _worst(job: Job, budget: Budget) -> Phase:
    return max(budget.phases(job), key=lambda phase: phase.total)


def _excess(job: Job, budget: Budget) -> int:
    """Return the bytes that are missing, over all phases."""
    usable = budget.usable(job)
    return sum(max(0, phase.total - usable) for phase in budget.phases(job))


def _too_large(job: Job, budget: Budget) -> bool:
    return _worst(job, budget).total > budget.usable(job)


def _checkpoint(job: Job, budget: Budget) -> Iterator[str]:
    """Yield a line if a checkpoint needs more host memory than a node has."""
    needed, offloaded = _host(job), memory.offloaded_on_node(job)
    if not job.cuda or budget.host is None or needed <= budget.host:
        return
    step = _lighter_checkpoint(job, budget)
    fix = f"set {step.overrides[0]}" if step else "use more nodes"
    sharded = _more_tensor_parallel(job, budget)
    if sharded and _host(sharded.job) <= budget.host:
        fix += f", or {sharded.overrides[0]}"
    saves = memory.save_on_node(job) >= memory.resume_on_node(job)
    what = "saving a checkpoint" if saves else "resuming from a checkpoint"
    beside = f" beside {gib(offloaded)} that are offloaded" if offloaded else ""
    yield (
        f"trainer.save_freq: {what} takes {gib(needed - offloaded)} of host memory on a node{beside}, which has "
        f"{gib(budget.host)} available; {fix}"
    )


def _host(job: Job) -> int:
    """Return the bytes of host memory that a node needs beside its GPUs."""
    return memory.checkpoint_on_node(job) + memory.offloaded_on_node(job)


def _lengths(job: Job) -> Iterator[str]:
    """Yield violations of limits that verl and vLLM would only assert in the middle of a run."""
    training, batches = job.training, job.batches
    rl, sft = batches.prompt_tokens + batches.response_tokens, batches.prompt_tokens + batches.demonstration_tokens
    keys = [(f"{_ACTOR}.ppo_max_token_len_per_gpu", training.token_budget, rl, "prompt and response")]
    if training.log_probs or training.reference:
        key = f"{_ROLLOUT}.log_prob_max_token_len_per_gpu"
        keys.append((key, training.log_prob_token_budget, rl, "prompt and response"))
    if training.supervised:
        key = "method.sft.max_token_len_per_gpu"
        if training.sft_token_budget == training.token_budget:
            key = f"{_ACTOR}.ppo_max_token_len_per_gpu"
        keys.append((key, training.sft_token_budget, sft, "prompt and demonstration"))
    for key, budget, longest, what in keys:
        if budget * training.context < longest:
            yield (
                f"{key}={budget} x context_parallel_size={training.context} is less than the longest {what}, "
                f"{longest} tokens, which must fit into a micro-batch; set it to {-(-longest // training.context)}"
            )
    largest = job.shape.largest_tensor * training.element_bytes
    if not job.cuda and largest > job.rollout.bucket_bytes:
        yield (
            f"{_ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes={job.rollout.bucket_bytes >> 20}: on CPU "
            f"the largest weight, {largest >> 20} MiB, must fit; set it to {-(-largest // (1 << 20))}"
        )


def fits(job: Job, budget: Budget) -> bool:
    """Return whether a job fits."""
    return not problems(job, budget)


def largest_token_budget(job: Job, budget: Budget, limit: int = 1 << 18) -> int | None:
    """Return the largest `ppo_max_token_len_per_gpu` with which the job fits.

    Budgets of the supervised update and the log-probs change with it if the configuration ties them to it.

    Args:
        job: the job.
        budget: the memory to plan for.
        limit: largest value to consider, in tokens.

    Returns:
        A multiple of 512 tokens; None if no value fits.
    """
    low, high = 0, limit // _BUDGET_STEP
    while low < high:
        middle = (low + high + 1) // 2
        if fits(with_token_budget(job, middle * _BUDGET_STEP), budget):
            low = middle
        elif _too_short(job, middle * _BUDGET_STEP):
            # The micro-batch cannot hold the longest sequence, so that the answer, if there is one, is larger.
            low = middle
        else:
            high = middle - 1
    best = low * _BUDGET_STEP
    return best if best and fits(with_token_budget(job, best), budget) else None


def _too_short(job: Job, tokens: int) -> bool:
    return tokens * job.training.context < job.batches.longest


def with_token_budget(job: Job, tokens: int) -> Job:
    """Return `job` with another `ppo_max_token_len_per_gpu`, and the same change to budgets that equal it."""
    old = job.training
    follow = {
        name: tokens if getattr(old, name) == old.token_budget else getattr(old, name)
        for name in ("sft_token_budget", "log_prob_token_budget")
    }
    return replace(job, training=replace(old, token_budget=tokens, **follow))


@dataclass(frozen=True)
class Step:
    """One change of the configuration.

    Attributes:
        overrides: the change as key=value arguments.
        reason: why it helps, or what it costs.
        job: the job after this change and all changes before it.
    """

    overrides: tuple[str, ...]
    reason: str
    job: Job


def changes(job: Job, budget: Budget) -> list[Step]:
    """Return changes that build on each other, in this order, until the job fits or no change helps.

    The cheapest come first: those without a cost in speed, then recomputation, more GPUs per replica, and offloading.

    Args:
        job: the job.
        budget: the memory to plan for.
    """
    if not job.cuda:
        return _cpu_changes(job, budget)
    candidates = list(_candidates)
    taken = _taken(job, budget, candidates)
    # A later change may make an earlier one needless, such as more tensor parallelism smaller micro-batches.
    for needless in dict.fromkeys(_candidates):
        others = [candidate for candidate in candidates if candidate is not needless]
        without = _taken(job, budget, others)
        if 0 < len(without) < len(taken) and fits(without[-1].job, budget) and _keys(*without) <= _keys(*taken):
            taken, candidates = without, others
    return _last_values(taken)


_Candidate = Callable[[Job, Budget], "Step | None"]


def _taken(job: Job, budget: Budget, candidates: Sequence[_Candidate]) -> list[Step]:
    """Return the changes of these that help, each after those before it, until the job fits."""
    taken: list[Step] = []
    for candidate in candidates:
        if fits(job, budget):
            break
        step = candidate(job, budget)
        if step is None:
            continue
        fewer = len(problems(step.job, budget)) < len(problems(job, budget))
        if fewer or _excess(step.job, budget) < _excess(job, budget):
            taken.append(step)
            job = step.job
    return taken


def _keys(*steps: Step) -> set[str]:
    return {override.partition("=")[0] for step in steps for override in step.overrides}


def _last_values(steps: Sequence[Step]) -> list[Step]:
    """Leave out the steps whose keys a later step sets, too."""
    return [
        step
        for number, step in enumerate(steps)
        if not any(_keys(step) <= _keys(later) for later in steps[number + 1 :])
    ]


def _cpu_changes(job: Job, budget: Budget) -> list[Step]:
    """Return changes as `changes` does; those that save memory only if the run fits with them.

    One change that is enough comes before several.
    """
    taken: list[Step] = []
    for candidate in (_raise_budget, _raise_bucket):
        if step := candidate(job, budget):
            taken.append(step)
            job = step.job
    if fits(job, budget):
        return taken
    savers = (_smaller_budget, _fewer_processes, _recompute)
    for saver in savers:
        step = saver(job, budget)
        if step and fits(step.job, budget):
            return [*taken, step]
    saving: list[Step] = []
    for saver in savers:
        if step := saver(job, budget):
            saving.append(step)
            job = step.job
        if fits(job, budget):
            return [*taken, *saving]
    return taken


def way_out(job: Job, budget: Budget, steps: Sequence[Step]) -> str:
    """Return what helps a job that no change of settings makes fit.

    Args:
        job: the job.
        budget: the memory to plan for.
        steps: changes that help, but not enough.
    """
    enough = "these changes are not enough" if steps else "no change of those that plan follows is enough"
    if job.cuda:
        number = _enough_gpus(job, budget) or "more GPUs"
        unknown = _uncounted_saving(steps[-1].job if steps else job, budget)
        return f"{enough}: use {number}, GPUs with more memory, or a smaller model{unknown}"
    needed = math.ceil(_worst(job, budget).total / GIB)
    processes = gib(memory.cpu_processes(1))
    return (
        f"{enough}: use a machine with at least {needed} GiB available; the processes of one rank alone take "
        f"{processes}, which no setting lowers"
    )


def _enough_gpus(job: Job, budget: Budget) -> str | None:
    """Return on how many GPUs the job fits, perhaps with changes; None: not on any number tried."""
    while job.gpus < _MOST_GPUS:
        fuller = 2 * job.gpus_per_node <= _GPUS_OF_A_NODE
        larger = _training(job, data=2 * job.training.data)
        sizes = {"gpus_per_node": 2 * job.gpus_per_node} if fuller else {"nodes": 2 * job.nodes}
        job = replace(larger, **sizes)
        steps = changes(job, budget)
        if fits(steps[-1].job if steps else job, budget):
            each = f"trainer.nnodes={job.nodes} trainer.n_gpus_per_node={job.gpus_per_node}"
            return f"{job.gpus} GPUs ({each}{', with changes that plan then names' if steps else ''})"
    return None


def _uncounted_saving(job: Job, budget: Budget) -> str:
    """Return which settings that the arithmetic does not follow may save what is missing; empty: none can."""
    worst = _worst(job, budget)
    short, held = worst.total - budget.usable(job), worst.parts.get("optimizer", 0)
    names = []
    if 0 < short <= held:
        names.append(f"{_OPTIMIZER}.optimizer_cpu_offload=true with optimizer_offload_fraction")
    if 0 < short <= held // 2:
        names.append("optim.use_precision_aware_optimizer=true with smaller types")
    if not names:
        return ""
    return f"; {' or '.join(names)}, which plan does not follow, may save the {gib(short)} that are missing"


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
    return Step((key,), "smaller and more micro-batches", with_token_budget(job, best))


def _recompute(job: Job, budget: Budget) -> Step | None:
    if job.training.recompute.granularity == "full":
        return None
    key = f"{_ACTOR}.megatron.override_transformer_config.recompute"
    overrides = (f"{key}_granularity=full", f"{key}_method=uniform", f"{key}_num_layers=1")
    changed = _training(job, recompute=Recompute("full", (), "uniform", 1))
    return Step(overrides, "recomputes activations in the backward pass: a third more work in updates", changed)


def _fewer_processes(job: Job, budget: Budget) -> Step | None:
    if job.cuda or job.gpus_per_node == 1 or job.nodes > 1:
        return None
    # Sizes that are 1 already need no argument.
    sizes = {
        f"{_ACTOR}.megatron.tensor_model_parallel_size": job.training.tensor,
        f"{_ACTOR}.megatron.pipeline_model_parallel_size": job.training.pipeline,
        f"{_ACTOR}.megatron.context_parallel_size": job.training.context,
        f"{_ROLLOUT}.tensor_model_parallel_size": job.rollout.tensor,
        f"{_ROLLOUT}.pipeline_model_parallel_size": job.rollout.pipeline,
    }
    overrides = ("trainer.n_gpus_per_node=1", *(f"{key}=1" for key, size in sizes.items() if size != 1))
    alone = _training(job, tensor=1, pipeline=1, context=1, data=1, sequence_parallel=False)
    alone = replace(alone, gpus_per_node=1, rollout=replace(job.rollout, tensor=1, pipeline=1))
    return Step(overrides, "one process for training and one for vLLM", alone)


def _offload_optimizer(job: Job, budget: Budget) -> Step | None:
    if job.training.optimizer_offload or not job.cuda:
        return None
    key = f"{_ACTOR}.megatron.optimizer_offload=true"
    return Step((key,), "moves the optimizer to host memory during rollouts", _training(job, optimizer_offload=True))


def _lighter_checkpoint(job: Job, budget: Budget) -> Step | None:
    """The first way to save that the host memory is enough for, if that is what is missing."""
    if not job.cuda or budget.host is None or _host(job) <= budget.host:
        return None
    ways = (
        (
            f"{_ACTOR}.megatron.distrib_optim_fully_reshardable_mem_efficient=true",
            "one rank gathers the optimizer of its data-parallel group for a checkpoint, over gloo: slower",
            {"gathered_on_one_rank": True},
        ),
        (
            f"{_ACTOR}.megatron.dist_ckpt_optim_fully_reshardable=false",
            "checkpoints gather nothing; they can be resumed with the same tensor and pipeline sizes only",
            {"gathered_checkpoint": False},
        ),
    )
    for override, reason, changed in ways:
        lighter = _training(job, **changed)
        if _host(lighter) <= budget.host:
            return Step((override,), reason, lighter)
    return None


def _offload_weights(job: Job, budget: Budget) -> Step | None:
    if job.training.param_offload or not job.cuda:
        return None
    key = f"{_ACTOR}.megatron.param_offload=true"
    reason = "moves weights to host memory and frees gradients during rollouts"
    return Step((key,), reason, _training(job, param_offload=True))


def _less_cache(job: Job, budget: Budget) -> Step | None:
    too_large = not _generates(job, budget)
    for share in (0.7, 0.6, 0.5, 0.4, 0.3, 0.2):
        changed = replace(job, rollout=replace(job.rollout, gpu_memory_utilization=share))
        helps = fits(changed, budget) or (too_large and _generates(changed, budget))
        if job.cuda and share < job.rollout.gpu_memory_utilization and helps:
            return Step((f"{_ROLLOUT}.gpu_memory_utilization={share}",), "smaller KV cache", changed)
    return None


def _generates(job: Job, budget: Budget) -> bool:
    """Return whether vLLM has room, and what training keeps beside it."""
    enough = memory.kv_cache(job, budget.memory) >= job.rollout.max_model_len * memory.kv_bytes_per_token(job)
    phase = next(phase for phase in budget.phases(job) if phase.name == memory.generation(job))
    return enough and phase.total <= budget.usable(job)


def _more_cache(job: Job, budget: Budget) -> Step | None:
    for share in (0.4, 0.5, 0.6, 0.7, 0.8):
        changed = replace(job, rollout=replace(job.rollout, gpu_memory_utilization=share))
        if job.cuda and share > job.rollout.gpu_memory_utilization and fits(changed, budget):
            return Step((f"{_ROLLOUT}.gpu_memory_utilization={share}",), "room for vLLM's KV cache", changed)
    return None


def _more_rollout_parallel(job: Job, budget: Budget) -> Step | None:
    """Return fewer and larger vLLM replicas, perhaps with another share of the memory, if vLLM has no room."""
    rollout, shape = job.rollout, job.shape
    had_room, tensor = _generates(job, budget), 2 * rollout.tensor
    while job.gpus_per_node % (tensor * rollout.pipeline) == 0 and shape.num_attention_heads % tensor == 0:
        for share in (rollout.gpu_memory_utilization, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2):
            changed = replace(job, rollout=replace(rollout, tensor=tensor, gpu_memory_utilization=share))
            if fits(changed, budget) or (not had_room and _generates(changed, budget)):
                overrides = [f"{_ROLLOUT}.tensor_model_parallel_size={tensor}"]
                overrides += [f"{_ROLLOUT}.gpu_memory_utilization={share}"] * (share != rollout.gpu_memory_utilization)
                return Step(tuple(overrides), "less of the weights in each GPU of a vLLM replica", changed)
        tensor *= 2
    return None


def _more_tensor_parallel(job: Job, budget: Budget) -> Step | None:
    training, shape = job.training, job.shape
    tensor = 2 * training.tensor
    sizes = (shape.num_attention_heads, shape.num_key_value_heads, shape.intermediate_size, shape.vocab_size)
    if training.data % 2 or tensor > job.gpus_per_node or any(size % tensor for size in sizes):
        return None
    changed = _training(job, tensor=tensor, data=training.data // 2, sequence_parallel=True)
    key = f"{_ACTOR}.megatron.tensor_model_parallel_size={tensor}"
    return Step((key,), "half of the weights, activations and logits per GPU", changed)


def _more_pipeline_parallel(job: Job, budget: Budget) -> Step | None:
    training = job.training
    pipeline = 2 * training.pipeline
    if training.data % 2 or job.shape.num_hidden_layers % pipeline:
        return None
    changed = _training(job, pipeline=pipeline, data=training.data // 2)
    return Step((f"{_ACTOR}.megatron.pipeline_model_parallel_size={pipeline}",), "half of the layers per GPU", changed)


_candidates = (
    _raise_budget,
    _raise_bucket,
    _lighter_checkpoint,
    _less_cache,
    _more_cache,
    _more_rollout_parallel,
    _smaller_budget,
    _less_cache,
    _recompute,
    _smaller_budget,
    _less_cache,
    _more_cache,
    _more_tensor_parallel,
    _smaller_budget,
    _more_tensor_parallel,
    _smaller_budget,
    _less_cache,
    _more_rollout_parallel,
    _more_pipeline_parallel,
    _less_cache,
    _more_cache,
    _more_pipeline_parallel,
    _smaller_budget,
    _offload_optimizer,
    _offload_weights,
    _less_cache,
    _more_cache,
)


def refusals(config: DictConfig) -> list[str]:
    """Return the reasons why a run cannot fit on this machine, one line each.

    On CUDA the run must fit the smallest GPU that `nvidia-smi` lists, and its checkpoints the available host memory, so
    that a head node without GPUs rejects nothing.
    On CPU it must fit the available memory. A model of unknown shape is never rejected.

    Args:
        config: the composed configuration.
    """
    try:
        job = read(config)
    except UnknownModel:
        return []
    if job.cuda:
        gpu = hardware.visible_gpu()
        budget = Budget.of_gpu(gpu.memory, host=hardware.available_memory()) if gpu else None
    else:
        budget = Budget.of_machine(hardware.available_memory())
    found = problems(job, budget) if budget else []
    if not found:
        return []
    steps = changes(job, budget)
    whole = hardware.whole_memory()
    if not job.cuda and not _too_large(job, Budget.of_machine(whole)):
        fix = f"other programs have the rest of its {gib(whole)}: end them, or wait"
    elif fits(steps[-1].job if steps else job, budget):
        fix = "`python -m verl_relift.plan` with the same arguments tells what to change"
    else:
        fix = way_out(job, budget, steps)
    return [*found[:-1], f"{found[-1]}; {fix}"] if _too_large(job, budget) else found


def gib(size: int) -> str:
    """Format bytes in GiB."""
    return f"{size / GIB:.1f} GiB"
