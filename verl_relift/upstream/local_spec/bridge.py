"""mbridge with Megatron's local layer spec.

mbridge builds every model from Transformer Engine's layer spec and names weights after it. Where Transformer Engine
is missing (CPU, or a CUDA machine without it) the local spec takes its place. The local spec keeps the layer norms as
modules of their own, which Transformer Engine fuses into the linear layer behind them.
"""

import functools
from types import ModuleType

from ..registry import Where, patch, replace


@patch(
    where=Where.LOCAL_SPEC,
    replaces=("mbridge.core.llm_bridge:LLMBridge._get_transformer_layer_spec",),
    versions=("mbridge", "megatron-core"),
    upstream="builds every model from Transformer Engine's layer spec",
    canary="test_mbridge_still_builds_from_transformer_engines_spec",
)
def use_local_spec(llm_bridge: ModuleType) -> None:
    def _get_transformer_layer_spec(self, vp_stage: int | None = None):
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec

        from .layers import use_local_modules

        self.has_vp_stage = True
        spec = get_gpt_decoder_block_spec(
            self.config, use_transformer_engine=False, normalization=self.config.normalization, vp_stage=vp_stage
        )
        return use_local_modules(spec)

    replace(llm_bridge.LLMBridge, "_get_transformer_layer_spec", _get_transformer_layer_spec)


@patch(
    where=Where.LOCAL_SPEC,
    replaces=("mbridge.core.bridge:Bridge._weight_name_mapping_mcore_to_hf",),
    versions=("mbridge",),
    upstream="knows only the names of Transformer Engine's spec, in which a layer norm is part of the layer behind it",
    canary="test_mbridge_still_does_not_know_the_local_specs_names",
)
def map_local_spec_names(bridge: ModuleType) -> None:
    original = bridge.Bridge._weight_name_mapping_mcore_to_hf

    @functools.wraps(original)
    def _weight_name_mapping_mcore_to_hf(self, mcore_weights_name: str) -> list[str]:
        name = mcore_weights_name.replace(".input_layernorm.", ".self_attention.linear_qkv.layer_norm_")
        return original(self, name.replace(".pre_mlp_layernorm.", ".mlp.linear_fc1.layer_norm_"))

    replace(bridge.Bridge, "_weight_name_mapping_mcore_to_hf", _weight_name_mapping_mcore_to_hf)
