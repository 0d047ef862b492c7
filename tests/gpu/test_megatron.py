"""Megatron on CUDA against Hugging Face, with the local layer spec and with Transformer Engine if it is installed."""

import copy
import os
import subprocess
import sys

import pytest
import torch

from tests.gpu.conftest import specs
from verl_relift.plan import flops, hardware, memory
from verl_relift.plan.job import Batches, Job, Rollout, Training
from verl_relift.plan.shapes import from_config
from verl_relift.testing.parity.ranks import free_port, save_model
from verl_relift.testing.parity.reference import LOSSES, log_probs_and_entropies

KINDS = ("qwen2", "tied", "qwen3", "llama")


def run_worker(model, output, dtype: str, spec: str, task: str):
    """Run one rank in a process of its own and return what it writes."""
    environment = {
        **os.environ,
        "VERL_PLATFORM": "nvidia",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    }
    command = [sys.executable, "-m", "tests.gpu.engine_worker", str(model), str(output), dtype, spec, task]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return torch.load(output, weights_only=True)


def errors(ours, theirs) -> list[float]:
    """Return the largest differences of log-probs and of entropies."""
    log_probs = max((a.float()[:-1] - b).abs().max().item() for a, b in zip(ours["log_probs"], theirs[0], strict=True))
    entropy = max((a.float() - b).abs().max().item() for a, b in zip(ours["entropy"], theirs[1], strict=True))
    return [log_probs, entropy]


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), 0).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", specs())
def test_fp32_equals_hugging_face(kind, spec, tmp_path, record):
    model = save_model(kind, tmp_path / "model")
    result = run_worker(tmp_path / "model", tmp_path / "out.pt", "float32", spec, "parity")
    with torch.no_grad():
        found = errors(result["outputs"], log_probs_and_entropies(model))
    record(f"{kind}, {spec}, fp32: largest error of log-probs and of entropy", f"{found[0]:.1e}, {found[1]:.1e}")
    # TF32 is off by default for matrix products; other kernels only add in another order.
    assert max(found) < 1e-4
    for name, loss_function in LOSSES.items():
        if name not in result:
            continue
        model.zero_grad()
        loss = loss_function(model)
        loss.backward()
        for value, gradients in result[name].values():
            assert value == pytest.approx(loss.item(), abs=1e-5)
            for parameter, expected in model.named_parameters():
                torch.testing.assert_close(gradients[parameter], expected.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", specs())
def test_bf16_is_as_close_to_fp32_as_hugging_face_in_bf16(kind, spec, tmp_path, record):
    model = save_model(kind, tmp_path / "model")
    result = run_worker(tmp_path / "model", tmp_path / "out.pt", "bfloat16", spec, "parity")
    with torch.no_grad():
        exact = log_probs_and_entropies(model)
        theirs = log_probs_and_entropies(copy.deepcopy(model).cuda().bfloat16().cpu())
    ours = errors(result["outputs"], exact)
    reference_error = errors({"log_probs": [_padded(t) for t in theirs[0]], "entropy": theirs[1]}, exact)
    record(
        f"{kind}, {spec}, bf16: largest error of log-probs (of Hugging Face in bf16)",
        f"{ours[0]:.1e} ({reference_error[0]:.1e})",
    )
    assert ours[0] < 3 * reference_error[0] + 1e-2
    assert ours[1] < 3 * reference_error[1] + 1e-2
    model.zero_grad()
    LOSSES["supervised"](model).backward()
    for _, gradients in result["supervised"].values():
        for parameter, expected in model.named_parameters():
            assert cosine(gradients[parameter], expected.grad) > 0.98, parameter


def _padded(log_probs: torch.Tensor) -> torch.Tensor:
    """Append a value, because the engine also returns one for the token after the last."""
    return torch.cat([log_probs, log_probs.new_zeros(1)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", specs())
def test_supervised_and_rl_updates_learn(dtype, spec, tmp_path):
    save_model("qwen2", tmp_path / "model")
    losses = run_worker(tmp_path / "model", tmp_path / "out.pt", dtype, spec, "updates")
    assert losses["supervised"][-1] < 0.9 * losses["supervised"][0]
    assert losses["policy"][-1] < losses["policy"][0]


@pytest.mark.parametrize("spec", specs())
def test_speed_and_memory_of_updates(spec, tmp_path, record):
    """Record the MFU of a supervised update; plan's memory is within 15% of what torch allocates."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from verl_relift.quickstart.base_model import build_tokenizer

    config = Qwen2Config(
        vocab_size=32768,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=12,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    Qwen2ForCausalLM(config).bfloat16().save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    result = run_worker(tmp_path / "model", tmp_path / "out.pt", "bfloat16", spec, "speed")

    shape = from_config(config.to_dict())
    training = Training(token_budget=result["budget"], transformer_engine=spec != "local", sequence_parallel=False)
    batches = Batches(questions=8, rollouts=1, mini_batch=8, prompt_tokens=0, response_tokens=4096)
    job = Job(shape, "test", 1, 1, True, training, Rollout(), batches)
    planned = sum(memory.rank_parts(job).values())
    record(
        f"{spec}: memory allocated in an update, and plan's",
        f"{result['allocated'] / 2**30:.2f}, {planned / 2**30:.2f} GiB",
    )
    assert planned == pytest.approx(result["allocated"], rel=0.15)

    tokens = result["sequences"] * 4096
    work = 3 * flops.forward_flops(shape, tokens, 2048)
    gpu = hardware.visible_gpu()
    record(f"{spec}: tokens per second in updates, {shape.parameters / 1e6:.0f}M", f"{tokens / result['seconds']:,.0f}")
    if gpu is not None and gpu.flops:
        utilization = work / result["seconds"] / gpu.flops
        record(f"{spec}: MFU of updates (of {gpu.flops / 1e12:.0f} TFLOP/s)", f"{utilization:.1%}")
        assert utilization > 0.05
