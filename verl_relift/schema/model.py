"""`actor_rollout_ref.model`: the policy's weights, tokenizer and chat template."""

from .rules import Dotted, Flag, Only, Text, Unchecked, under

_LORA = "LoRA adapters are not supported, all weights are trained; `python -m verl_relift.plan` names what saves memory"

KEYS = under(
    "actor_rollout_ref.model",
    {
        "path": Text(),
        "tokenizer_path": Text(null=True),
        "hf_config_path": Unchecked(),  # `model_support` asks for both
        "override_config": Unchecked(),
        "use_shm": Flag(),
        "trust_remote_code": Only(False, "code that comes with a model is not run"),
        "custom_chat_template": Text(null=True),
        "external_lib": Dotted(module=True),
        "use_remove_padding": Only(True, "demonstrations come without padding"),
        "use_fused_kernels": Flag(),
        "lora_rank": Only(0, _LORA),
        "lora_adapter_path": Only(None, _LORA),
        "lora": {"rank": Only(0, _LORA), "adapter_path": Only(None, _LORA)},
    },
)
