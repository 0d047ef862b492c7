"""A model is trained only if every field of its config.json reaches Megatron, and vLLM runs the same one."""

import copy
import json
from functools import cache

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig

from verl_relift import train  # noqa: F401  registers the configuration's resolver
from verl_relift.model_support import (
    FAMILIES,
    FIXED,
    HONORED,
    INERT,
    ROPE,
    completed,
    config_problems,
    longest_sequence,
    model_problems,
)
from verl_relift.testing.parity.models import CASES, make_case_config

LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)
COMMON = dict(hidden_act="silu", initializer_range=0.02, use_cache=True, torch_dtype="bfloat16")
LLAMA = COMMON | dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    attention_bias=False,
    attention_dropout=0.0,
    mlp_bias=False,
    bos_token_id=128000,
    eos_token_id=128001,
    hidden_size=4096,
    intermediate_size=14336,
    max_position_embeddings=131072,
    num_attention_heads=32,
    num_hidden_layers=32,
    num_key_value_heads=8,
    pretraining_tp=1,
    rms_norm_eps=1e-5,
    rope_scaling=LLAMA3,
    rope_theta=500000.0,
    tie_word_embeddings=False,
    transformers_version="4.43.0.dev0",
    vocab_size=128256,
)
QWEN2 = COMMON | dict(
    architectures=["Qwen2ForCausalLM"],
    model_type="qwen2",
    attention_dropout=0.0,
    bos_token_id=151643,
    eos_token_id=151643,
    hidden_size=3584,
    intermediate_size=18944,
    max_position_embeddings=131072,
    max_window_layers=28,
    num_attention_heads=28,
    num_hidden_layers=28,
    num_key_value_heads=4,
    rms_norm_eps=1e-6,
    rope_theta=1000000.0,
    sliding_window=131072,
    tie_word_embeddings=False,
    transformers_version="4.40.1",
    use_mrope=False,
    use_sliding_window=False,
    vocab_size=152064,
)
QWEN3 = COMMON | dict(
    architectures=["Qwen3ForCausalLM"],
    model_type="qwen3",
    attention_bias=False,
    attention_dropout=0.0,
    bos_token_id=151643,
    eos_token_id=151645,
    head_dim=128,
    hidden_size=1024,
    intermediate_size=3072,
    max_position_embeddings=40960,
    max_window_layers=28,
    num_attention_heads=16,
    num_hidden_layers=28,
    num_key_value_heads=8,
    rms_norm_eps=1e-6,
    rope_scaling=None,
    rope_theta=1000000,
    sliding_window=None,
    tie_word_embeddings=True,
    transformers_version="4.51.0",
    use_sliding_window=False,
    vocab_size=151936,
)
SMOLLM2 = (
    COMMON
    | dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        attention_bias=False,
        attention_dropout=0.0,
        bos_token_id=0,
        eos_token_id=0,
        hidden_size=576,
        intermediate_size=1536,
        is_llama_config=True,
        max_position_embeddings=8192,
        num_attention_heads=9,
        num_hidden_layers=30,
        num_key_value_heads=3,
        pretraining_tp=1,
        rms_norm_eps=1e-5,
        rope_interleaved=False,
        rope_scaling=None,
        rope_theta=100000,
        tie_word_embeddings=True,
        transformers_version="4.40.1",
        vocab_size=49152,
    )
    | {"transformers.js_config": {"dtype": "q4"}}
)
YARN = dict(factor=4.0, original_max_position_embeddings=32768, type="yarn")

# As their config.json on the hub has it, most with a few fields of another size.
MODELS = {
    "Qwen2.5-7B": QWEN2,
    "Qwen2.5-Math-7B": QWEN2 | dict(max_position_embeddings=4096, rope_theta=10000, sliding_window=4096),
    "Qwen2.5-Math-1.5B": QWEN2 | dict(tie_word_embeddings=True),
    "Qwen2.5-7B-Instruct for long texts": QWEN2 | dict(rope_scaling=YARN),
    "DeepSeek-R1-Distill-Qwen-7B": QWEN2 | dict(rope_theta=10000),
    "Qwen3-0.6B": QWEN3,
    "Qwen3-8B for long texts": QWEN3 | dict(rope_scaling=dict(YARN, rope_type="yarn")),
    "Llama-2-7B": LLAMA | dict(rope_scaling=None, num_key_value_heads=32, rope_theta=10000.0),
    "Llama-3-8B": LLAMA | dict(rope_scaling=None, max_position_embeddings=8192),
    "Llama-3.1-8B": LLAMA,
    "Llama-3.2-1B": LLAMA | dict(head_dim=64, rope_scaling=LLAMA3 | dict(factor=32.0), tie_word_embeddings=True),
    "DeepSeek-R1-Distill-Llama-8B": LLAMA,
    "SmolLM2-135M": SMOLLM2,
    "of unsloth": LLAMA | dict(unsloth_fixed=True, unsloth_version="2025.1"),
    "with empty fields": QWEN2 | dict(quantization_config=None, final_logit_softcapping=None),
}


def problems(tmp_path, fields: dict) -> list[str]:
    """What is wrong with a config.json, as transformers reads it, and as `plan` does without transformers."""
    (tmp_path / "config.json").write_text(json.dumps(fields))
    found = list(config_problems(AutoConfig.from_pretrained(tmp_path).to_dict()))
    assert list(config_problems(completed(fields))) == found
    return found


@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_hub_are_let_through(tmp_path, name):
    assert problems(tmp_path, MODELS[name]) == []


@pytest.mark.parametrize("case", CASES)
def test_what_parity_compares_is_let_through(case):
    config = make_case_config(case)
    config.architectures = [FAMILIES[config.model_type][0]]
    assert list(config_problems(config.to_dict())) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_parity_varies_every_field_that_changes_what_a_model_computes(family):
    configs = [make_case_config(case) for case in CASES]
    configs = [config for config in configs if config.model_type == family]
    for field in HONORED:
        assert len({getattr(config, field, None) for config in configs}) > 1, field
    parameters = [config.rope_parameters for config in configs]
    for kind, fields in ROPE.items():
        of_kind = [one for one in parameters if one["rope_type"] == kind]
        assert of_kind, kind
        if kind in ("llama3", "yarn"):
            for field in fields:
                assert len({one.get(field) for one in of_kind}) > 1, (kind, field)
    assert len({one["rope_theta"] for one in parameters}) > 1


def test_a_field_has_one_place():
    assert not HONORED & INERT and not HONORED & FIXED.keys() and not INERT & FIXED.keys()
    for _, fixed in FAMILIES.values():
        assert not fixed.keys() & (HONORED | INERT | FIXED.keys())


def test_the_config_of_a_checkpoint_is_let_through(tmp_path):
    """verl puts the base of the positions where mbridge looks for it, and saves that with every checkpoint."""
    config = AutoConfig.for_model(**{name: value for name, value in LLAMA.items() if name != "transformers_version"})
    config.rope_theta = config.rope_parameters["rope_theta"]
    config.save_pretrained(tmp_path)
    assert list(config_problems(AutoConfig.from_pretrained(tmp_path).to_dict())) == []


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        (QWEN3, 40960),
        (LLAMA, 131072),
        (QWEN2 | dict(max_position_embeddings=32768, rope_scaling=YARN), 131072),
        (QWEN2 | dict(max_position_embeddings=131072, rope_scaling=YARN | dict(factor=2.0)), 65536),
        (QWEN2 | dict(max_position_embeddings=4096, rope_scaling=dict(type="linear", factor=2.0)), 8192),
    ],
)
def test_the_longest_sequence_is_what_vllm_derives(tmp_path, fields, tokens):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert longest_sequence(AutoConfig.from_pretrained(tmp_path).to_dict()) == tokens


GEMMA = dict(architectures=["Gemma2ForCausalLM"], model_type="gemma2")
MIXTRAL = dict(architectures=["MixtralForCausalLM"], model_type="mixtral")
MISTRAL = dict(architectures=["MistralForCausalLM"], model_type="mistral")
REJECTED = {
    # the bridge drops or fixes it
    "attention_bias=True": LLAMA | dict(attention_bias=True),
    "attention_bias=True, Qwen3": QWEN3 | dict(attention_bias=True),
    "mlp_bias=True": LLAMA | dict(mlp_bias=True),
    "hidden_act=gelu": LLAMA | dict(hidden_act="gelu"),
    "hidden_act=relu, Qwen3": QWEN3 | dict(hidden_act="relu"),
    "attention_dropout=0.1": QWEN2 | dict(attention_dropout=0.1),
    "use_sliding_window=True": QWEN2 | dict(use_sliding_window=True, max_window_layers=14),
    "use_sliding_window=True, Qwen3": QWEN3 | dict(use_sliding_window=True, sliding_window=4096),
    "use_mrope=True": QWEN2 | dict(use_mrope=True),
    "rope_interleaved=True": SMOLLM2 | dict(rope_interleaved=True),
    "layer_types=": QWEN3 | dict(layer_types=["sliding_attention", "full_attention"] * 14),
    "sliding_window=4096": LLAMA | dict(sliding_window=4096),
    "neftune_noise_alpha=5": LLAMA | dict(neftune_noise_alpha=5),
    # positions on which the engines differ
    "rope_type=dynamic": LLAMA | dict(rope_scaling=dict(type="dynamic", factor=2.0)),
    "rope_type=longrope": QWEN3
    | dict(rope_scaling=dict(type="longrope", short_factor=[1.0] * 64, long_factor=[2.0] * 64, factor=4.0)),
    "rope_type=su": LLAMA | dict(rope_scaling=dict(type="su", factor=2.0)),
    "rope_type=proportional": LLAMA | dict(rope_scaling=dict(rope_type="proportional", partial_rotary_factor=0.5)),
    "attention_factor=1.5": QWEN2 | dict(rope_scaling=YARN | dict(attention_factor=1.5)),
    "mscale=0.7": QWEN2 | dict(rope_scaling=YARN | dict(mscale=0.7)),
    "attn_factor=2": QWEN3 | dict(rope_scaling=YARN | dict(attn_factor=2)),
    "beta_fast=None": QWEN3 | dict(rope_scaling=YARN | dict(beta_fast=None)),
    "factor=8": LLAMA | dict(rope_scaling=dict(type="linear", factor="8")),
    "factor=4.0 of rope_type=default": QWEN2 | dict(rope_scaling=dict(factor=4.0)),
    "mrope_section=": QWEN2 | dict(rope_scaling=dict(type="default", mrope_section=[16, 24, 24])),
    "partial_rotary_factor=0.5": LLAMA | dict(rope_scaling=None, partial_rotary_factor=0.5),
    "full_attention=": QWEN2 | dict(rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=1e4))),
    # unknown
    "final_logit_softcapping=30.0": LLAMA | dict(final_logit_softcapping=30.0),
    "attn_logit_softcapping=50.0": QWEN2 | dict(attn_logit_softcapping=50.0),
    "embedding_multiplier=12.0": LLAMA | dict(embedding_multiplier=12.0),
    "logits_scaling=8.0": LLAMA | dict(logits_scaling=8.0),
    "residual_multiplier=0.2": LLAMA | dict(residual_multiplier=0.2),
    "qk_norm=True": QWEN2 | dict(qk_norm=True),
    "is_causal=False": QWEN2 | dict(is_causal=False),
    "no_rope_layers=": LLAMA | dict(no_rope_layers=[0, 1]),
    "dual_chunk_attention_config=": QWEN2 | dict(dual_chunk_attention_config=dict(chunk_size=8192)),
    "quantization_config=": LLAMA | dict(quantization_config=dict(quant_method="gptq", bits=4)),
    "auto_map=": LLAMA | dict(auto_map=dict(AutoModelForCausalLM="modeling.Mine")),
    "num_experts=8": QWEN3 | dict(num_experts=8),
    # another model
    "architectures=['Qwen2ForRewardModel']": QWEN2 | dict(architectures=["Qwen2ForRewardModel"]),
    "architectures=['LlamaForSequenceClassification']": LLAMA | dict(architectures=["LlamaForSequenceClassification"]),
    "architectures=None": {name: value for name, value in LLAMA.items() if name != "architectures"},
    "model_type=gemma2": GEMMA,
    "model_type=mixtral": MIXTRAL,
    "model_type=mistral": MISTRAL,
}


@pytest.mark.parametrize("named", REJECTED)
def test_anything_else_is_rejected_in_one_line(tmp_path, named):
    found = problems(tmp_path, REJECTED[named])
    assert len(found) == 1, found
    assert named.split(",")[0] in found[0] and "\n" not in found[0]
    assert any(fix in found[0] for fix in ("choose", "remove it", "correct it", "can be trained", "only"))


def test_two_fields_are_two_lines(tmp_path):
    assert len(problems(tmp_path, LLAMA | dict(attention_bias=True, mlp_bias=True))) == 2


@cache
def defaults() -> DictConfig:
    with initialize_config_module("verl_relift.config", version_base=None):
        return compose("relift", overrides=["hydra.searchpath=[pkg://verl.trainer.config]", "platform=cpu"])


def configuration(model, *overrides: str) -> DictConfig:
    """The default configuration with a model's folder."""
    config = copy.deepcopy(defaults())
    OmegaConf.set_struct(config, False)
    return OmegaConf.merge(config, OmegaConf.from_dotlist([f"actor_rollout_ref.model.path={model}", *overrides]))


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["actor_rollout_ref.actor.megatron.vanilla_mbridge=false"], "actor.megatron.vanilla_mbridge=false"),
        (["actor_rollout_ref.actor.megatron.use_mbridge=false"], "actor.megatron.use_mbridge=false"),
        (["actor_rollout_ref.ref.megatron.vanilla_mbridge=false"], "ref.megatron.vanilla_mbridge=false"),
        (["actor_rollout_ref.model.override_config.rope_theta=1e5"], "model.override_config.rope_theta"),
        (["actor_rollout_ref.model.override_config.model_config.hidden_act=gelu"], "override_config.hidden_act"),
        (["actor_rollout_ref.model.hf_config_path=/elsewhere"], "model.hf_config_path=/elsewhere"),
    ],
)
def test_settings_that_give_megatron_another_model_are_rejected(tmp_path, overrides, named):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    found = list(model_problems(configuration(tmp_path, *overrides)))
    assert found and all(named in problem or "use_mbridge" in problem for problem in found)


def test_a_model_is_checked_where_it_is(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    harmless = "actor_rollout_ref.model.override_config.attn_implementation=sdpa"
    assert list(model_problems(configuration(tmp_path, harmless))) == []
    (tmp_path / "config.json").write_text(json.dumps(QWEN3 | dict(attention_bias=True)))
    (found,) = model_problems(configuration(tmp_path))
    assert found.startswith(f"{tmp_path}: config.json has attention_bias=True")
    for broken in (dict(rope_scaling=dict(type="llama3", factor=8.0)), dict(attention_bias="yes")):
        (tmp_path / "config.json").write_text(json.dumps(LLAMA | broken))
        (found,) = model_problems(configuration(tmp_path))
        assert "transformers cannot read its config.json" in found and "\n" not in found


def test_a_missing_model_is_left_to_the_check_of_its_files(tmp_path):
    assert list(model_problems(configuration(tmp_path / "none"))) == []
