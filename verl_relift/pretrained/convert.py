"""Converts a GGUF file into a Hugging Face folder: config, bf16 weights, tokenizer, chat template.

transformers reads config and weights, and restores what quantization kept of them. The tokenizer is built here from
the file's own tables: transformers' loader splits numbers and decodes text differently than the models that are
pinned, and takes the token that begins a turn for the one that ends it.
"""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from .errors import ModelUnavailable

_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens in GGUF
_ALIKE = 0.2  # relative difference of one matrix quantized twice, at most; of two matrices it is 1.4
_SMOLLM, _QWEN2 = "smollm", "qwen2"  # names of the rules that split a text, in GGUF
_QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def convert(gguf: Path, output: Path) -> None:
    """Write a GGUF file as a Hugging Face folder.

    Args:
        gguf: the file.
        output: the folder, which must not exist.

    Raises:
        ModelUnavailable: the tokenizer is of a kind that is not known here.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM

    fields = {name: field.contents() for name, field in GGUFReader(gguf).fields.items() if "tokenizer" in name}
    tokenizer = build_tokenizer(fields)
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
        # The file's ids, in place of those that the loader takes from its own idea of the tokenizer.
        ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
        for config in (model.config, model.generation_config):
            for name, token in ids.items():
                setattr(config, f"{name}_token_id", token)
        _tie(model)
        model.save_pretrained(output)
    _drop_what_is_no_config(output / "config.json")
    tokenizer.save_pretrained(output)


def _tie(model: Any) -> None:
    """Make one matrix of embeddings and output layer where the file has the same one twice, each quantized in its way.

    The output layer's is the finer one.
    """
    import torch

    embeddings, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if output is not embeddings and (output - embeddings).norm() < _ALIKE * output.norm():
        with torch.no_grad():
            embeddings.copy_(output)
        model.config.tie_word_embeddings = True
        model.tie_weights()


def _drop_what_is_no_config(path: Path) -> None:
    """Remove from config.json what no model reads: the file's own name and a token of the tokenizer."""
    config = json.loads(path.read_text())
    for name in ("_model_name_or_path", "unk_token_id"):
        config.pop(name, None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def build_tokenizer(fields: dict[str, Any]) -> Any:
    """Return the transformers tokenizer that a GGUF file describes.

    Args:
        fields: the file's entries under `tokenizer.`.

    Raises:
        ModelUnavailable: the rules that split a text are not known here.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    rules = fields["tokenizer.ggml.pre"]
    known = {token: i for i, token in enumerate(tokens) if kinds[i] not in (_CONTROL, _USER_DEFINED)}
    added = [i for i, kind in enumerate(kinds) if kind in (_CONTROL, _USER_DEFINED)]
    # With the added tokens among the others each keeps its id, wherever the file has it.
    tokenizer = Tokenizer(models.BPE(vocab=known | {tokens[i]: i for i in added}, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer(rules)
    tokenizer.decoder = decoders.ByteLevel()
    if rules == _QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    for i in added:
        token = AddedToken(tokens[i], special=kinds[i] == _CONTROL, normalized=False)
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    named = {
        f"{name}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if f"tokenizer.ggml.{key}_token_id" in fields
    }
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)
    fast.chat_template = fields["tokenizer.chat_template"]
    return fast


def _pre_tokenizer(rules: str) -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    if rules == _SMOLLM:
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    if rules == _QWEN2:
        pieces = Split(Regex(_QWEN2_PIECES), behavior="isolated")
        return Sequence([pieces, ByteLevel(add_prefix_space=False, use_regex=False)])
    raise ModelUnavailable(f"the tokenizer splits text by the rules {rules!r}; known are {_SMOLLM} and {_QWEN2}")
