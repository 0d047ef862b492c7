"""Memory of the second update against the plan, and how much of the GPU's arithmetic an update uses."""

import time

from ..report import Report
from ..step import Task

LENGTH, BUDGET, SEQUENCES = 4096, 16384, 8
TIMED = 3
WITHIN = 0.10


def run(report: Report, task: Task) -> None:
    """Make RL and supervised updates of two micro-batches and compare their peak with the plan's arithmetic."""
    import torch

    from verl_relift.plan import flops, hardware, memory
    from verl_relift.plan.job import read

    from .. import engine, models

    length, budget = (LENGTH, BUDGET) if task.cuda else (64, 256)
    models.save(task.argument if task.cuda else "tiny", task.folder / "model", task.device)
    engine.release()
    overrides = [
        f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={budget}",
        f"data.max_prompt_length={length // 2}",
        f"data.max_response_length={length // 2}",
        f"data.train_batch_size={SEQUENCES}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={SEQUENCES}",
        "actor_rollout_ref.rollout.n=1",
    ]
    spec = "Transformer Engine" if engine.has_transformer_engine() else "local spec"
    engine.start(task.device)
    config = engine.compose(task.device, task.folder / "model", *overrides)
    job = read(config, transformer_engine=engine.has_transformer_engine())
    planned = memory.rank_parts(job)
    report.figure("plan, GiB by part", {part: round(size / 2**30, 3) for part, size in planned.items()})
    rank = engine.Rank(config, "bfloat16" if task.cuda else "float32")
    kinds = {
        "RL update": (rank.policy_update, rank.batch(SEQUENCES, length)),
        "supervised update": (rank.supervised_update, rank.demonstrations(SEQUENCES, length)),
    }
    work = 3 * flops.forward_flops(job.shape, SEQUENCES * length, length / 2)
    gpu = hardware.visible_gpu()
    for kind, (update, batch) in kinds.items():
        with report.part(kind):
            name = f"{task.argument}, {spec}, {kind}"
            update(batch.clone())  # the optimizer's state and what is compiled come with the first
            peak = _peak(task, lambda update=update, batch=batch: update(batch.clone()))
            seconds = _seconds(task, lambda update=update, batch=batch: update(batch.clone()))
            report.figure(f"{name}: tokens/s", round(SEQUENCES * length / seconds))
            if task.cuda:
                off = sum(planned.values()) / peak - 1
                found = f"{peak / 2**30:.2f} GiB measured, {sum(planned.values()) / 2**30:.2f} planned ({off:+.1%})"
                report.check(f"{name}: peak of allocated memory", abs(off) < WITHIN, found, f"within {WITHIN:.0%}")
                report.figure(f"{name}: reserved, GiB", round(torch.cuda.max_memory_reserved() / 2**30, 2))
            if gpu is not None and gpu.flops:
                mfu = work / seconds / gpu.flops
                report.check(f"{name}: MFU", mfu > 0.05, round(mfu, 3), f"> 0.05 of {gpu.flops / 1e12:.0f} TFLOP/s")


def _peak(task: Task, update) -> int:
    """Return the largest number of allocated bytes during an update; 0 on a CPU, where nobody counts."""
    import torch

    if not task.cuda:
        update()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    update()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _seconds(task: Task, update) -> float:
    """Return the mean duration of an update."""
    import torch

    started = time.perf_counter()
    for _ in range(TIMED):
        update()
    if task.cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / TIMED
