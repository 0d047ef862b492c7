"""Which models can be trained: those that Megatron, Hugging Face and vLLM compute alike, by the fields of config.json.

mbridge turns a Hugging Face model into Megatron's. A field that it does not know, it drops without a word, and training
would see another model than rollouts. So every field that is let through is listed here, and any other is rejected.
tests/parity/test_models.py compares them on several values of each field that changes what a model computes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Carried over, whatever the value.
HONORED = frozenset(
    {
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "tie_word_embeddings",
        "vocab_size",
    }
)

# Without effect on the probability of a token.
INERT = frozenset(
    {
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "is_llama_config",
        "label2id",
        "max_position_embeddings",
        "max_window_layers",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "tokenizer_class",
        "transformers.js_config",
        "transformers_version",
        "unsloth_fixed",
        "unsloth_version",
        "use_cache",
    }
)

# With the only value that all engines compute alike.
FIXED: Mapping[str, Any] = {
    "attention_dropout": 0,
    "chunk_size_feed_forward": 0,
    "hidden_act": "silu",
    "is_encoder_decoder": False,
    "mlp_bias": False,
    "neftune_noise_alpha": 0,
    "rope_interleaved": False,
    "use_mrope": False,
    "use_sliding_window": False,
}

# model_type -> its architecture, and what is fixed in it beside `FIXED`. Where attention has a bias by choice, its
# output projection has one too, which mbridge drops. In Qwen2 queries, keys and values always have one, and it never.
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"attention_bias": False}),
    "qwen2": ("Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3ForCausalLM", {"attention_bias": False}),
}

# rope_type -> its numbers. `dynamic` and `longrope` depend on the length of a sequence in Hugging Face, and on the
# longest possible one in vLLM, which also ignores yarn's attention_factor, mscale and mscale_all_dim.
ROPE: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset({"factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "truncate"}),
}

# Keys of `actor_rollout_ref.model.override_config` that Megatron never sees.
_HARMLESS_OVERRIDES = {"attn_implementation"}


def model_problems(config: DictConfig) -> Iterator[str]:
    """Yield why another model than the configured one would be trained, one line each."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    yield from bridge_problems(config)
    path = config.actor_rollout_ref.model.path
    try:
        hf = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError):
        return  # no model, or of an unknown kind: the check of the model's files says so
    except (KeyError, StrictDataclassError) as error:
        yield f"{path}: transformers cannot read its config.json ({' '.join(str(error).split())}); correct it"
        return
    for problem in config_problems(hf.to_dict()):
        yield f"{path}: config.json has {problem}"


def config_problems(hf: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields that the engines would not compute alike, each with the fix.

    Args:
        hf: a model's configuration as transformers completes it (`to_dict`).
    """
    family = hf.get("model_type")
    if family not in FAMILIES:
        yield f"model_type={family}, which cannot be trained; choose a dense model of {', '.join(FAMILIES)}"
        return
    architecture, fixed = FAMILIES[family]
    if hf.get("architectures") != [architecture]:
        yield f"architectures={hf.get('architectures')}; of {family} only [{architecture}] can be trained"
    fixed = FIXED | fixed
    for name, value in hf.items():
        if name == "rope_parameters":
            yield from _rope_problems(value)
        elif name in fixed:
            if value not in (None, fixed[name]):
                yield f"{name}={value}, which would be trained as {name}={fixed[name]}; choose another model"
        elif not _is_harmless(name, value, hf):
            yield (
                f"{name}={_short(value)}, which is not known to reach Megatron; if it does not change what the model "
                "computes, remove it from config.json, otherwise choose another model"
            )


def completed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `config.json` with the names that transformers gives its fields, without importing it.

    `config_problems` finds in it what it finds in what transformers makes of the file.
    """
    config = {name: value for name, value in raw.items() if name not in ("rope_scaling", "rope_theta", "torch_dtype")}
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    rope.setdefault("rope_theta", raw.get("rope_theta") or 10000.0)
    rope.setdefault("rope_type", rope.get("type", "default"))
    if "partial_rotary_factor" in raw:
        rope.setdefault("partial_rotary_factor", raw["partial_rotary_factor"])
    config["rope_parameters"] = rope
    if str(raw.get("model_type")).startswith("qwen") and not raw.get("use_sliding_window"):
        config["sliding_window"] = None
    return config


def _is_harmless(name: str, value: Any, hf: Mapping[str, Any]) -> bool:
    """Return whether a field changes nothing, or is a part of one that is named anyway."""
    if name in ("layer_types", "sliding_window") and hf.get("use_sliding_window"):
        return True
    if name in (hf.get("rope_parameters") or ()):
        return True
    if name == "layer_types":
        return set(value) == {"full_attention"}
    return value is None or name in HONORED or name in INERT


def longest_sequence(hf: Mapping[str, Any]) -> int:
    """Return how many tokens of prompt and response vLLM takes, which counts scaled positions by their type.

    Args:
        hf: a model's configuration as transformers completes it (`to_dict`), with no `config_problems`.
    """
    rope, longest = hf["rope_parameters"], hf["max_position_embeddings"]
    if rope["rope_type"] == "yarn":
        return int(rope["original_max_position_embeddings"] * rope["factor"])
    return int(longest * rope["factor"]) if rope["rope_type"] == "linear" else longest


def positions_problem(wanted: int, longest: int) -> Iterator[str]:
    """Yield that a model reads fewer tokens than a prompt and a response may have together."""
    if wanted > longest:
        yield (
            f"actor_rollout_ref.rollout.max_model_len={wanted}: the model reads at most {longest} tokens "
            "(max_position_embeddings) of prompt and response together; lower data.max_prompt_length or "
            "data.max_response_length, or make a copy with more: data_preprocess.prepare_model --max-positions"
        )


def _rope_problems(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with `rope_parameters`, which older files call `rope_scaling`."""
    kind = parameters.get("rope_type")
    if kind not in ROPE:
        yield f"rope_type={kind}; Megatron, Hugging Face and vLLM agree on {', '.join(ROPE)} only"
        return
    for name, value in parameters.items():
        if name in ROPE[kind] or name == "rope_theta":
            if not isinstance(value, int | float):
                yield f"{name}={value} of rope_type={kind}, which is not a number; correct it"
        elif name not in ("rope_type", "type") and value is not None:
            yield f"{name}={_short(value)} of rope_type={kind}, which Megatron or vLLM would ignore; remove it"


def bridge_problems(config: DictConfig) -> Iterator[str]:
    """Yield settings that would give Megatron another model than vLLM, or another bridge."""
    model = config.actor_rollout_ref.model
    for role in ("actor", "ref"):
        for key in ("use_mbridge", "vanilla_mbridge"):
            if not config.actor_rollout_ref[role].megatron[key]:
                yield f"actor_rollout_ref.{role}.megatron.{key}=false: mbridge is the only bridge here; leave it true"
    overrides = OmegaConf.to_container(model.override_config)
    for name in sorted(overrides.get("model_config", overrides).keys() - _HARMLESS_OVERRIDES):
        yield (
            f"actor_rollout_ref.model.override_config.{name} would change the model that is trained, not the one that "
            "vLLM runs; remove the key, and change config.json in a copy of the model"
        )
    if model.hf_config_path not in (None, model.path):
        yield (
            f"actor_rollout_ref.model.hf_config_path={model.hf_config_path} would change the model that is trained, "
            "not the one that vLLM runs; set it to null"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
