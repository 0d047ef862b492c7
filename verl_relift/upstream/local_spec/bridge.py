"""mbridge with Megatron's local layer spec.

mbridge builds every model from Transformer Engine's layer spec and names weights after it. Where Transformer Engine
is missing (CPU, or a CUDA machine without it) the local spec takes its place. The local spec keeps the layer norms as
modules of their own, which Transformer Engine fuses into the linear layer behind them.

Beside that, two things of mbridge that matter with any spec.
"""

import functools
import importlib.util
from collections.abc import Callable
from types import ModuleType

from .. import versions as upstream
from ..speed import rotary as local_rotary


def has_transformer_engine() -> bool:
    return importlib.util.find_spec("transformer_engine") is not None


def use_local_spec_without_transformer_engine(llm_bridge: ModuleType) -> None:
    """``mbridge.core.llm_bridge``: build the local spec if there is no Transformer Engine."""
    if has_transformer_engine():
        return
    upstream.require("mbridge")
    upstream.require("megatron-core")

    def _get_transformer_layer_spec(self, vp_stage: int | None = None):
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec

        from .layers import use_local_modules

        self.has_vp_stage = True
        spec = get_gpt_decoder_block_spec(
            self.config, use_transformer_engine=False, normalization=self.config.normalization, vp_stage=vp_stage
        )
        return use_local_modules(spec)

    llm_bridge.LLMBridge._get_transformer_layer_spec = _get_transformer_layer_spec


def rotate_without_copies(rope_utils: ModuleType) -> None:
    """``megatron.core.models.common.embeddings.rope_utils``: Transformer Engine has a kernel for it."""
    if not has_transformer_engine():
        upstream.require("megatron-core")
        local_rotary.rotate_at_once(rope_utils)


def map_local_spec_names(bridge: ModuleType) -> None:
    """``mbridge.core.bridge``: translate the local spec's layer norms to the names that mbridge's tables know."""
    if has_transformer_engine():
        return
    original = bridge.Bridge._weight_name_mapping_mcore_to_hf

    @functools.wraps(original)
    def _weight_name_mapping_mcore_to_hf(self, mcore_weights_name: str) -> list[str]:
        name = mcore_weights_name.replace(".input_layernorm.", ".self_attention.linear_qkv.layer_norm_")
        return original(self, name.replace(".pre_mlp_layernorm.", ".mlp.linear_fc1.layer_norm_"))

    bridge.Bridge._weight_name_mapping_mcore_to_hf = _weight_name_mapping_mcore_to_hf


class _ModelTypes:
    """Megatron's ``ModelType`` with the member that mbridge still compares with."""

    encoder_and_decoder = object()

    def __init__(self, known: type):
        self.encoder_or_decoder = known.encoder_or_decoder


def know_removed_model_type(util: ModuleType) -> None:
    """``mbridge.core.util``: megatron-core 0.18 has no ``ModelType.encoder_and_decoder``; mbridge 0.15.1 asks for it.

    No model of mbridge's is of that type, so the comparison only has to be possible.
    """
    if not hasattr(util.ModelType, "encoder_and_decoder"):
        upstream.require("mbridge")
        util.ModelType = _ModelTypes(util.ModelType)


def keep_to_one_stage(bridge: ModuleType) -> None:
    """``mbridge.core.bridge``: with one pipeline stage no weight is broadcast over the stages.

    mbridge gathers a description of every weight, broadcasts its name and then the weight itself, in groups of one
    rank: several collectives for each weight of each synchronization.
    """
    for name in ("broadcast_from_megatron_pp", "broadcast_str_from_megatron_pp"):
        setattr(bridge, name, _where_there_are_several_stages(getattr(bridge, name)))


def _where_there_are_several_stages(broadcast: Callable) -> Callable:
    @functools.wraps(broadcast)
    def broadcast_over_stages(value):
        from megatron.core import parallel_state

        return value if parallel_state.get_pipeline_model_parallel_world_size() == 1 else broadcast(value)

    return broadcast_over_stages
