"""The training loop on one device: vLLM generates, Megatron updates, and the weights go back each step."""

import statistics

from ..report import Report
from ..step import Task

STEPS = 5


def run(report: Report, task: Task) -> None:
    """Train a random model on real questions for a few steps and look at its metrics."""
    from .. import training

    data, model, folder = (task.folder / name for name in ("data", "model", "run"))
    training.command("data_preprocess.gsm8k", "--input", str(task.gsm8k), "--output", str(data), "--template", "think")
    # vLLM's CUDA attention kernels have no head size below 64.
    hidden = ("--hidden-size", "256") if task.cuda else ()
    training.command("verl_relift.quickstart.random_model", "--output", str(model), *hidden)
    status = training.train(
        folder,
        "--config-name",
        "smoke",
        f"platform={task.device}",
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/test.parquet",
        f"actor_rollout_ref.model.path={model}",
        f"trainer.total_training_steps={STEPS}",
        "trainer.n_gpus_per_node=1",
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
        *(["actor_rollout_ref.rollout.gpu_memory_utilization=0.3"] if task.cuda else []),
    )
    steps = training.records(folder)
    report.check("the training command", status == 0, status, "status 0")
    report.check("steps", len(steps) == STEPS, len(steps), f"{STEPS}")
    if not steps:
        return
    difference = max(step["training/rollout_probs_diff_max"] for step in steps)
    bar = 0.05 if task.cuda else 1e-3
    report.check(
        "largest difference of a token's probability, vLLM against Megatron", difference < bar, difference, f"< {bar}"
    )
    losses = [step["relift/sft_loss"] for step in steps if "relift/sft_loss" in step]
    report.check(
        "supervised losses fall", len(losses) > 1 and losses[-1] < losses[0], losses, "the last below the first"
    )
    for name in ("step", "gen", "update_actor", "update_actor_sft", "update_weights"):
        values = [step[f"timing_s/{name}"] for step in steps if f"timing_s/{name}" in step]
        if values:
            report.figure(f"seconds of {name}, median", round(statistics.median(values), 3))
