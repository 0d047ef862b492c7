"""mbridge's models with the rotary frequencies of Hugging Face's configuration."""

import functools
import math
from types import ModuleType

from ..registry import Where, patch, replace

# The kinds of scaling that only rescale frequencies and attention, whatever the length of a sequence.
SCALED = ("linear", "llama3", "yarn")


@patch(
    where=Where.EVERYWHERE,
    replaces=("mbridge.core.llm_bridge:LLMBridge._model_provider",),
    versions=("mbridge", "megatron-core"),
    upstream="looks for `rope_scaling` among the attributes of a configuration, where transformers 5 has "
    "`rope_parameters`, so every model gets unscaled frequencies (in Llama-3.1 and 3.2 all positions are wrong), and "
    "Qwen's were never scaled. Here the models get the frequencies that transformers computes",
    canary="test_mbridge_still_drops_the_scaling_of_positions",
)
def scale_positions(llm_bridge: ModuleType) -> None:
    original = llm_bridge.LLMBridge._model_provider

    @functools.wraps(original)
    def _model_provider(self, post_model_creation_callbacks):
        provide = original(self, post_model_creation_callbacks)
        kind = self.hf_config.rope_parameters["rope_type"]
        if kind == "default":
            return provide
        if kind not in SCALED:
            raise NotImplementedError(
                f"rope_type={kind} of the model: only default, {', '.join(SCALED)} can be trained"
            )
        frequencies, factor = _frequencies(self.hf_config)
        # YaRN multiplies the cosines and sines of queries and keys. Their product is multiplied twice, which any
        # kernel of attention can do; Transformer Engine's kernel for packed rotary embeddings drops the factor.
        self.config.softmax_scale = factor**2 / math.sqrt(self.config.kv_channels)

        @functools.wraps(provide)
        def provider(*args, **settings):
            model = provide(*args, **settings)
            rotary = model.rotary_pos_emb
            rotary.inv_freq = frequencies.to(rotary.inv_freq)
            rotary.seq_len_interpolation_factor = None
            return model

        return provider

    replace(llm_bridge.LLMBridge, "_model_provider", _model_provider)


def _frequencies(hf_config) -> tuple:
    """Rotary frequencies, float32 [head_dim / 2] on the CPU, and what cosines and sines are multiplied by."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return ROPE_INIT_FUNCTIONS[hf_config.rope_parameters["rope_type"]](hf_config, device="cpu")
