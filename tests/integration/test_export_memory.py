"""Measures the memory of an export on random weights in the shape of Qwen2.5-1.5B.

`python -m pytest -s -m slow tests/integration/test_export_memory.py`
"""

import json
import resource
import subprocess
import sys
import time

import pytest
import torch

from verl_relift.quickstart.base_model import build_tokenizer


@pytest.mark.slow
def test_an_export_peaks_at_one_and_a_half_times_the_weights(tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path / "run" / "global_step_1" / "actor" / "model" / "huggingface"
    build_tokenizer().save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    model.save_pretrained(folder)
    del model
    manifest = {"contents": {"model": {"path": "model/huggingface", "format": "huggingface"}}}
    (folder.parents[1] / "ckpt_contents.json").write_text(json.dumps(manifest))

    command = [sys.executable, "-m", "verl_relift.export", "--checkpoint", folder.parents[2]]
    started = time.perf_counter()
    subprocess.run([*command, "--output", tmp_path / "hf"], check=True)
    seconds = time.perf_counter() - started
    # Of the largest child so far; no other child of this process comes near. Mapped pages of files count.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"export of {size / 1e9:.2f} GB: peak {peak / 1e9:.2f} GB, {peak / size:.2f} x the weights, {seconds:.0f} s")
    assert peak <= 1.5 * size
