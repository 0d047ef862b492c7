"""Models of random weights in the shapes that the steps need."""

from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

# hidden, intermediate, layers, heads, key-value heads, vocabulary, tied embeddings. The tokenizer has 264 tokens; of a
# larger vocabulary verl lets vLLM sample no others, so that probabilities differ from the actor's.
SHAPES = {
    "tiny": (128, 192, 2, 4, 2, 264, False),
    "small": (512, 1408, 4, 8, 2, 4096, False),
    "0.5b": (896, 4864, 24, 14, 2, 151936, True),  # Qwen2.5-0.5B
    "0.7b": (2048, 5632, 12, 16, 4, 32768, False),
    "1.5b": (1536, 8960, 28, 12, 2, 151936, True),  # Qwen2.5-1.5B
}


def save(name: str, folder: Path, device: str) -> Qwen2Config:
    """Write a Qwen2 of random weights and a tokenizer that reads any text.

    Args:
        name: a shape in `SHAPES`.
        folder: where to.
        device: where the weights are drawn.

    Returns:
        The model's configuration.
    """
    from verl_relift.quickstart.random_model import build_byte_tokenizer

    hidden, intermediate, layers, heads, key_value_heads, vocabulary, tied = SHAPES[name]
    tokenizer = build_byte_tokenizer()
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM(config)
    model.to(torch.bfloat16 if device == "cuda" else torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return config
