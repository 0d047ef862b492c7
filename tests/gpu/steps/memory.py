"""Memory of the second update against plan and trace, and how much of the GPU's arithmetic an update uses."""

import json
import subprocess
import sys
import time
from pathlib import Path

from ..report import Report
from ..step import Task

LENGTH, SEQUENCES = 4096, 8
# Tokens of a micro-batch: what fits beside 18 bytes per parameter on 80 GB.
BUDGETS = {"0.7b": 16384, "1.5b": 8192}
TIMED = 3
PLAN_WITHIN = 0.10
GIB = 2**30


def run(report: Report, task: Task) -> None:
    """Make RL and supervised updates of two or more micro-batches each; `plan --trace` works beside them."""
    from verl_relift.upstream import transformer_engine

    from .. import engine, models

    length, budget = (LENGTH, BUDGETS[task.argument]) if task.cuda else (64, 256)
    model = task.folder / "model"
    models.save(task.argument if task.cuda else "tiny", model, task.device)
    engine.release()
    overrides = [
        f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={budget}",
        f"data.max_prompt_length={length // 2}",
        f"data.max_response_length={length // 2}",
        f"data.train_batch_size={SEQUENCES // 2}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={SEQUENCES // 2}",
        "actor_rollout_ref.rollout.n=2",
    ]
    has_te = transformer_engine.usable()
    plan = _start_plan(task, model, overrides, has_te)
    engine.start(task.device)
    rank = engine.Rank(engine.compose(task.device, model, *overrides), "bfloat16" if task.cuda else "float32")
    peaks = {}
    for kind, update, batch in (
        ("RL update", rank.policy_update, rank.batch(SEQUENCES, length)),
        ("supervised update", rank.supervised_update, rank.demonstrations(SEQUENCES, length)),
    ):
        with report.part(kind):
            name = f"{task.argument}, {'Transformer Engine' if has_te else 'local spec'}, {kind}"
            update(batch.clone())  # the optimizer's state and what is compiled come with the first
            peaks[kind] = name, _peak(task, update, batch)
            _speed(report, task, name, model, length, _seconds(task, update, batch))
    with report.part("plan --trace"):
        output, _ = plan.communicate(timeout=max(30.0, task.seconds / 2))
        _compare(report, task, peaks, json.loads(output)["trace"][0])


def _start_plan(task: Task, model: Path, overrides: list[str], has_te: bool) -> subprocess.Popen:
    """Start the plan of the same updates. Its arithmetic and its trace take a minute of one core."""
    from ..engine import ONE_RANK

    command = [sys.executable, "-m", "verl_relift.plan", "--trace", "--json", *(["--gpu", "h100"] if task.cuda else [])]
    command += [] if has_te or not task.cuda else ["--local-spec"]
    command += [f"platform={task.device}", f"actor_rollout_ref.model.path={model}", *ONE_RANK, *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _compare(report: Report, task: Task, peaks: dict[str, tuple[str, int]], trace: dict) -> None:
    """Compare what was allocated with what `plan --trace` printed for the rank."""
    for kind, (name, peak) in peaks.items():
        planned, traced = sum(trace["planned"][kind].values()), trace["phases"][kind]["device"]["total"]
        report.figure(f"{name}: plan, by part, GiB", {k: round(v / GIB, 3) for k, v in trace["planned"][kind].items()})
        report.figure(f"{name}: plan and trace, GiB", [round(planned / GIB, 3), round(traced / GIB, 3)])
        if task.cuda:
            report.figure(f"{name}: trace off by", round(traced / peak - 1, 4))
            off, found = planned / peak - 1, f"{peak / GIB:.2f} GiB measured, {planned / GIB:.2f} planned"
            report.check(
                f"{name}: peak of allocated memory", abs(off) < PLAN_WITHIN, found, f"within {PLAN_WITHIN:.0%}"
            )


def _peak(task: Task, update, batch) -> int:
    """Return the largest number of allocated bytes during an update; 0 on a CPU, where nobody counts."""
    import torch

    if not task.cuda:
        update(batch.clone())
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    update(batch.clone())
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _seconds(task: Task, update, batch) -> float:
    """Return the mean duration of an update."""
    import torch

    started = time.perf_counter()
    for _ in range(TIMED):
        update(batch.clone())
    if task.cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / TIMED


def _speed(report: Report, task: Task, name: str, model: Path, length: int, seconds: float) -> None:
    """Note tokens per second and, where the GPU's figures are known, its utilization."""
    from verl_relift.plan import flops, hardware
    from verl_relift.plan.shapes import load

    tokens = SEQUENCES * length
    report.check(f"{name}: tokens/s", seconds > 0, round(tokens / seconds), "measured")
    gpu = hardware.visible_gpu() if task.cuda else None
    if gpu is not None and gpu.flops:
        # Three passes' worth: the backward pass costs two.
        utilization = 3 * flops.forward_flops(load(str(model))[0], tokens, length / 2) / seconds / gpu.flops
        report.check(
            f"{name}: MFU of {gpu.flops / 1e12:.0f} TFLOP/s", utilization > 0.05, round(utilization, 3), "> 0.05"
        )
