"""Tiny random models of every supported family, each with one field of its configuration varied."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ...quickstart.base_model import build_tokenizer
from .batch import SHAPE

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
}

# vLLM's attention on a CPU takes heads of 32 and more.
_SHAPE = SHAPE | dict(hidden_size=128)

_LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500_000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
# The batch's longest sequence has 60 tokens, so the original lengths of 16 and 32 are exceeded; vLLM takes 64.
_YARN = dict(rope_type="yarn", rope_theta=10_000.0, factor=2.0, original_max_position_embeddings=32)

VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": dict(tie_word_embeddings=True),
    "theta": dict(rope_parameters=dict(rope_type="default", rope_theta=40_000.0)),
    "linear": dict(rope_parameters=dict(rope_type="linear", rope_theta=10_000.0, factor=2.5)),
    "llama3": dict(rope_parameters=_LLAMA3),
    "llama3-all": dict(
        rope_parameters=_LLAMA3
        | dict(factor=32.0, low_freq_factor=2.0, high_freq_factor=8.0, original_max_position_embeddings=16)
    ),
    "yarn": dict(rope_parameters=_YARN),
    "yarn-all": dict(
        rope_parameters=_YARN
        | dict(factor=4.0, original_max_position_embeddings=16, beta_fast=4, beta_slow=0.5, truncate=False)
    ),
    "epsilon": dict(rms_norm_eps=1e-2),
    "head": dict(head_dim=64),
    "shape": dict(
        vocab_size=96,
        hidden_size=192,
        intermediate_size=80,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
    ),
}

CASES = [f"{family}-{variation}" for family in FAMILIES for variation in VARIATIONS]


def make_case_config(name: str) -> PreTrainedConfig:
    """Build the configuration of a case in `CASES`."""
    family, variation = name.split("-", 1)
    make_config, _, fields = FAMILIES[family]
    return make_config(**copy.deepcopy(_SHAPE | fields | VARIATIONS[variation]))


def make_case(name: str) -> PreTrainedModel:
    """Build the randomly initialized fp32 model of a case in `CASES`."""
    torch.manual_seed(7)
    config = make_case_config(name)
    model = FAMILIES[config.model_type][1](config)
    for parameter_name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in parameter_name else 0.0, std=0.2)
    return model.float()


def save_cases(folder: Path) -> dict[str, PreTrainedModel]:
    """Write every case with a tokenizer to a folder of its name, and return the models."""
    models = {name: make_case(name) for name in CASES}
    for name, model in models.items():
        model.save_pretrained(folder / name)
        build_tokenizer().save_pretrained(folder / name)
    return models
