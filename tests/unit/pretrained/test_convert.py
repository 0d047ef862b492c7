"""The tokenizer of a GGUF file, built from a small file's entries."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from verl_relift.pretrained.convert import _tie, build_tokenizer
from verl_relift.pretrained.errors import ModelUnavailable

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def fields(rules="smollm", **changes):
    from tokenizers.pre_tokenizers import ByteLevel

    pieces = [("<|endoftext|>", CONTROL), ("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), ("<tool>", USER_DEFINED)]
    pieces += [(character, NORMAL) for character in sorted(ByteLevel.alphabet())] + [("12", NORMAL), ("Ġa", NORMAL)]
    return {
        "tokenizer.ggml.pre": rules,
        "tokenizer.ggml.tokens": [piece for piece, _ in pieces],
        "tokenizer.ggml.token_type": [kind for _, kind in pieces],
        "tokenizer.ggml.merges": ["1 2", "Ġ a"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}",
    } | changes


def test_the_token_that_ends_a_turn_is_the_files():
    tokenizer = build_tokenizer(fields())
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.pad_token_id) == ("<|im_end|>", 2, 2)
    assert (tokenizer.bos_token_id, tokenizer.unk_token_id, len(tokenizer)) == (1, 0, 4 + 256 + 2)
    assert tokenizer.apply_chat_template([{"content": "a"}], tokenize=False) == "<|im_start|>a<|im_end|>"


def test_every_digit_of_smollm_is_a_token():
    tokenizer = build_tokenizer(fields())
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("12 a")) == ["1", "2", "Ġa"]


@pytest.mark.parametrize("rules", ["smollm", "qwen2"])
@pytest.mark.parametrize("text", ["12  a\n\n b", "naïve «日本» 😀", "  ▁ x=12.5%", "<|im_start|>a<tool>b<|im_end|>"])
def test_text_survives(rules, text):
    """Spaces, bytes, transformers' own sign for a space, and special tokens."""
    tokenizer = build_tokenizer(fields(rules))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert (2 in ids) == ("<|im_end|>" in text)


def test_control_tokens_are_skipped_and_others_stay():
    tokenizer = build_tokenizer(fields())
    ids = tokenizer.encode("<|im_start|>a<tool>b<|im_end|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<tool>b"


def test_a_saved_tokenizer_is_the_same(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = build_tokenizer(fields())
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.encode("12 a<|im_end|>") == tokenizer.encode("12 a<|im_end|>")
    assert (loaded.eos_token_id, loaded.chat_template) == (2, tokenizer.chat_template)


def test_unknown_rules_are_refused():
    with pytest.raises(ModelUnavailable, match="by the rules 'tekken'; known are smollm and qwen2"):
        build_tokenizer(fields("tekken"))


@pytest.mark.parametrize(("noise", "tied"), [(0.05, True), (1.0, False)], ids=["quantized-twice", "two-matrices"])
def test_a_matrix_that_the_file_has_twice_is_one(tmp_path, noise, tied):
    config = AutoConfig.for_model(
        "llama", vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    output = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(output + noise * output.std() * torch.randn_like(output))
    _tie(model)
    model.save_pretrained(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert read.config.tie_word_embeddings is tied
    assert torch.equal(read.lm_head.weight, output)
    assert torch.equal(read.model.embed_tokens.weight, output) is tied
