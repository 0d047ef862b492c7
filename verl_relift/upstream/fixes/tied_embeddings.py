"""mbridge's names of the output layer where it shares the embedding's weights."""

from types import ModuleType

from ..registry import Where, patch, replace


def _share(self) -> None:
    """Map the output layer, which the last pipeline stage has a copy of, to the embedding, for this model alone."""
    if self.hf_config.tie_word_embeddings:
        embedding = self._DIRECT_MAPPING["embedding.word_embeddings.weight"]
        self._DIRECT_MAPPING = self._DIRECT_MAPPING | {"output_layer.weight": embedding}


@patch(
    where=Where.EVERYWHERE,
    replaces=("mbridge.models.llama:LLaMABridge._adjust_mapping_for_shared_weights",),
    versions=("mbridge",),
    upstream="looks for the output layer of a Llama that shares its embeddings (Llama-3.2, SmolLM2) under a name that "
    "its checkpoint does not have, so with several pipeline stages no such model can be loaded",
    canary="test_mbridge_still_asks_a_tied_llama_for_its_output_layer",
)
def share_embeddings_of_llama(llama: ModuleType) -> None:
    replace(llama.LLaMABridge, "_adjust_mapping_for_shared_weights", _share)


@patch(
    where=Where.EVERYWHERE,
    replaces=("mbridge.models.qwen2:Qwen2Bridge._adjust_mapping_for_shared_weights",),
    versions=("mbridge",),
    upstream="notes that one model shares its embeddings in a table of all Qwen models of the process; one that is "
    "built after it and does not share them gets its embedding for an output layer",
    canary="test_mbridge_still_shares_the_embeddings_of_later_models",
)
def share_embeddings_of_one_qwen(qwen2: ModuleType) -> None:
    replace(qwen2.Qwen2Bridge, "_adjust_mapping_for_shared_weights", _share)
