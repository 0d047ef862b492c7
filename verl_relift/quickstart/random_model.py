"""Write a small randomly initialized model that reads any text.

    python -m verl_relift.quickstart.random_model --output DIR

The model is a Qwen2 with a byte-level tokenizer. It lets you try the training loop on real data without pretrained
weights. It knows nothing, so that every question is hardest and every supervised update lowers its loss.
"""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

from ..usage import argument_parser
from .base_model import CHAT_TEMPLATE, MULTIPLE, TAGS

# `<|system|>` lets the chat template encode system prompts.
SPECIAL = ["<|pad|>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>"]


def build_byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of 256 bytes, the special tokens, and one token per tag of the answer format."""
    tokens = [*SPECIAL, *TAGS, *(t for t in sorted(pre_tokenizers.ByteLevel.alphabet()) if t not in TAGS)]
    tokens += [f"<|reserved_{i}|>" for i in range(-len(tokens) % MULTIPLE)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in tokens if t.startswith("<|")])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS if len(tag) > 1])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def main() -> None:
    """Run the command."""
    parser = argument_parser("verl_relift.quickstart.random_model", __doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    logging.disable_progress_bar()
    tokenizer = build_byte_tokenizer()
    there = arguments.output / "config.json"
    # One that this command has made has the vocabulary of its tokenizer.
    if there.exists() and json.loads(there.read_text()).get("vocab_size") != len(tokenizer):
        parser.error(f"{arguments.output} has another model; choose another --output")
    torch.manual_seed(arguments.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=arguments.hidden_size,
            intermediate_size=2 * arguments.hidden_size,
            num_hidden_layers=arguments.layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).float()
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    print(f"{arguments.output}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
