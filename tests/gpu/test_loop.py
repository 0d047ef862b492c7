"""The training loop on one GPU: vLLM generates, Megatron updates, and the weights go through CUDA IPC."""

import importlib.util
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"
STEPS = 5


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_training_with_vllm(tmp_path, record):
    def run(*arguments: str) -> None:
        result = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=800)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]

    data, model, folder = tmp_path / "data", tmp_path / "model", tmp_path / "run"
    run("data_preprocess.gsm8k", "--input", str(GSM8K), "--output", str(data), "--template", "think")
    # vLLM's CUDA attention kernels have no head size below 64.
    run("verl_relift.quickstart.random_model", "--output", str(model), "--hidden-size", "256")
    run(
        "verl_relift.train",
        "--config-name",
        "smoke",
        "platform=cuda",
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/test.parquet",
        f"actor_rollout_ref.model.path={model}",
        f"trainer.default_local_dir={folder}",
        f"trainer.total_training_steps={STEPS}",
        "trainer.n_gpus_per_node=1",
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.3",
    )
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == STEPS
    assert steps[-1]["relift/sft_updates"] >= 1
    # Both engines compute in bf16, and vLLM samples with the weights that Megatron has trained.
    difference = max(step["training/rollout_probs_diff_max"] for step in steps)
    assert difference < 0.05
    losses = [step["relift/sft_loss"] for step in steps if "relift/sft_loss" in step]
    assert losses[-1] < losses[0]
    record("loop: largest difference between vLLM's and Megatron's probability of a token", f"{difference:.1e}")
    record("loop: seconds per step, median", f"{statistics.median(step['timing_s/step'] for step in steps):.1f}")
