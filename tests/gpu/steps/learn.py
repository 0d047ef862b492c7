"""ReLIFT on a real model for as long as there is time: its accuracy before and after, its speed, where time goes.

Without the model the same run measures a model of random weights of its shape.
"""

import statistics
import time
from pathlib import Path

from ..report import Report
from ..step import Task

# What stopping takes: the running step, the checkpoint, the end of Ray.
RESERVE = 90.0
# Of the step on a CPU.
REHEARSED = 240.0
_TIMED = ("step", "gen", "old_log_prob", "update_actor", "update_actor_sft", "update_weights", "testing")


def run(report: Report, task: Task) -> None:
    """Train until the time is over, then read the run's metrics."""
    from .. import models, training

    started, seconds = time.monotonic(), task.seconds if task.cuda else min(task.seconds, REHEARSED)
    data, folder = task.folder / "data", task.folder / "run"
    with report.part("model"):
        model = convert(task.model, task.folder / "model") if task.model else task.folder / "model"
        if not task.model:
            models.save("0.5b" if task.cuda else "tiny", model, task.device)
        report.figure("model", "Qwen2.5-Coder-0.5B-Instruct" if task.model else "random weights: speed only")
    training.command("data_preprocess.gsm8k", "--input", str(task.gsm8k), "--output", str(data), "--template", "boxed")
    left = seconds - RESERVE - (time.monotonic() - started)
    status = training.train(folder, *_arguments(task, data, model), stop_after=max(10.0, left))
    steps = training.records(folder)
    report.check("the training command", status in (0, 75), status, "0: finished, or 75: stopped with a checkpoint")
    report.check("steps", len(steps) > 1, len(steps), "more than 1")
    if steps:
        _figures(report, steps)


def convert(model: Path, output: Path) -> Path:
    """Return a Hugging Face folder: `model` itself, or made from the GGUF file that it holds."""
    found = sorted(model.glob("*.gguf"))
    if not found:
        return model
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model, gguf_file=found[0].name, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(model, gguf_file=found[0].name)
    # The conversion takes the base model's; without the file's own no answer would end.
    end = int(GGUFReader(found[0]).fields["tokenizer.ggml.eos_token_id"].parts[-1][0])
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    loaded.config.eos_token_id = loaded.generation_config.eos_token_id = end
    loaded.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return output


def _arguments(task: Task, data: Path, model: Path) -> list[str]:
    common = [
        f"platform={task.device}",
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/test.parquet",
        f"actor_rollout_ref.model.path={model}",
        "trainer.n_gpus_per_node=1",
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
        "trainer.total_training_steps=1000",
        "trainer.save_freq=1000",
    ]
    if not task.cuda:
        return ["--config-name", "smoke", *common]
    return [
        *common,
        "data.train_batch_size=64",
        "actor_rollout_ref.actor.ppo_mini_batch_size=64",
        "data.max_prompt_length=512",
        "data.max_response_length=512",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192",
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.4",
        "actor_rollout_ref.rollout.max_num_seqs=512",
        "method.sft.batch_size=32",
        "trainer.logger=[console]",
        "trainer.val_before_train=true",
        "trainer.test_freq=20",
    ]


def _figures(report: Report, steps: list[dict]) -> None:
    for name in _TIMED:
        values = [step[f"timing_s/{name}"] for step in steps[1:] if f"timing_s/{name}" in step]
        if values:
            report.figure(f"seconds of {name}, median", round(statistics.median(values), 3))
    for name in (
        "critic/score/mean",
        "response_length/mean",
        "training/rollout_probs_diff_max",
        "perf/throughput",
        "perf/max_memory_allocated_gb",
    ):
        values = [step[name] for step in steps if name in step]
        if values:
            report.figure(
                f"{name}, first five steps and last five",
                [round(statistics.mean(v), 4) for v in (values[:5], values[-5:])],
            )
    for name in sorted({name for step in steps for name in step if name.startswith("val-core/")}):
        report.figure(name, {step["step"]: step[name] for step in steps if name in step})
