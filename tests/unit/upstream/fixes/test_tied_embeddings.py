"""Where mbridge looks for the output layer of a model that shares its embeddings."""

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the findings are of a process without CUDA")

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def test_mbridge_still_asks_a_tied_llama_for_its_output_layer(megatron_process):
    """The day this fails, `share_embeddings_of_llama` can go."""
    found = megatron_process["shared embeddings"]
    assert found["upstream"][0] == OUTPUT
    assert found["patched"][0] == EMBEDDING


def test_mbridge_still_shares_the_embeddings_of_later_models(megatron_process):
    """The day this fails, `share_embeddings_of_one_qwen` can go."""
    found = megatron_process["shared embeddings"]
    assert found["upstream"][1:] == [EMBEDDING, EMBEDDING]
    assert found["patched"][1:] == [EMBEDDING, OUTPUT]
