"""Pretrains the quickstart's base model: a Qwen2 of 0.3M parameters that can add and subtract but has never seen `*`.

`python -m verl_relift.quickstart.base_model --data DIR --output DIR` trains it on `DIR/pretrain.parquet` in under a
minute on two cores. Tokens are characters, except that each tag of the answer format is one token.
"""

import math
import random
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from ..usage import argument_parser

SPECIAL = ["<|pad|>", "<|endoftext|>", "<|user|>", "<|assistant|>"]
TAGS = ["<think>", "</think>", "\\boxed{", "}"]
CHARACTERS = list("0123456789+-*/()=?., ")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MULTIPLE = 4  # of the vocabulary's size, so that tensor parallelism up to 4 divides it

STEPS = 500
BATCH = 32
PEAK_LR = 3e-3
WARMUP = 100


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a character-level tokenizer. Its length equals the model's vocabulary, which verl and vLLM rely on."""
    alphabet = sorted(
        {pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(c)[0][0] for c in [*CHARACTERS, "\n"]}
    )
    tokens = [*SPECIAL, *TAGS, *alphabet]
    tokens += [f"<|reserved_{i}|>" for i in range(-len(tokens) % MULTIPLE)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    reserved = [token for token in tokens if token.startswith("<|")]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in reserved])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        # transformers adds this token to the tokenizer of any qwen2 model that lacks it.
        eos_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(vocab_size: int, eos_token_id: int, pad_token_id: int, seed: int) -> Qwen2ForCausalLM:
    """Return a randomly initialized Qwen2 with two layers of width 128, in fp32.

    Args:
        vocab_size: number of tokens.
        eos_token_id: id of the end token.
        pad_token_id: id of the padding token.
        seed: seed of the initialization.
    """
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
    )
    model = Qwen2ForCausalLM(config).float()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embed" not in name:
            torch.nn.init.normal_(parameter, std=0.6 / math.sqrt(parameter.shape[1]))
    return model


def read_pairs(path: Path, tokenizer: PreTrainedTokenizerFast) -> list[tuple[list[int], list[int]]]:
    """Return (prompt ids, response ids with the end token) of every row of a parquet file.

    Args:
        path: a parquet file in verl's schema with demonstrations in `target`.
        tokenizer: a tokenizer with a chat template.
    """
    rows = pq.read_table(path, columns=["prompt", "target"]).to_pylist()
    pairs = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        response = tokenizer.encode(row["target"][0]["content"], add_special_tokens=False)
        pairs.append((prompt, [*response, tokenizer.eos_token_id]))
    return pairs


def pretrain(
    model: Qwen2ForCausalLM, pairs: list[tuple[list[int], list[int]]], pad: int, seed: int, steps: int
) -> None:
    """Train a model in place on the responses, with AdamW, linear warm-up and linear decay to a tenth.

    Args:
        model: the model.
        pairs: (prompt ids, response ids) to sample from.
        pad: id of the padding token.
        seed: seed of the sampling.
        steps: number of updates.
    """
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01)
    start = time.time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * min(1.0, (step + 1) / WARMUP) * max(0.1, 1 - step / steps)
        batch = rng.sample(pairs, BATCH)
        width = max(len(p) + len(r) for p, r in batch)
        ids = torch.tensor([[*p, *r, *[pad] * (width - len(p) - len(r))] for p, r in batch])
        labels = torch.tensor([[*[-100] * len(p), *r, *[-100] * (width - len(p) - len(r))] for p, r in batch])
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"step {step + 1}/{steps}  loss {loss.item():.4f}  {time.time() - start:.0f} s", flush=True)


def main() -> None:
    """Run the command."""
    parser = argument_parser("verl_relift.quickstart.base_model", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with pretrain.parquet")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()

    # At this size a second thread waits longer than it computes, especially on a busy machine.
    torch.set_num_threads(1)
    scratch = arguments.output.with_name(f".{arguments.output.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    build_tokenizer().save_pretrained(scratch)
    # Training and vLLM will load the tokenizer from the folder, so its length there is the one that counts.
    tokenizer = AutoTokenizer.from_pretrained(scratch)
    model = build_model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, arguments.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")
    pretrain(
        model,
        read_pairs(arguments.data / "pretrain.parquet", tokenizer),
        tokenizer.pad_token_id,
        arguments.seed,
        arguments.steps,
    )
    model.save_pretrained(scratch)
    if len(AutoTokenizer.from_pretrained(scratch)) != model.config.vocab_size:
        raise SystemExit(f"{scratch}: the tokenizer's length differs from the model's vocabulary size")
    shutil.rmtree(arguments.output, ignore_errors=True)
    scratch.rename(arguments.output)


if __name__ == "__main__":
    main()
