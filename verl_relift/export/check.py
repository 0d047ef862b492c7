"""The exported folder against the checkpoint it came from: same tokens, same log-probabilities."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .errors import ExportError

# Largest difference of a sampled token's log-probability that is put down to arithmetic: in one dtype only the order of
# sums can differ; a conversion from fp32 to 16 bits rounds every weight (bf16 to 8 significant bits).
_TOLERANCE_SAME, _TOLERANCE_MEAN_ROUNDED = 1e-4, 0.05
_TEXT = "What is 7*2+3-4? 7+7=14, 14+3=17, 17-4=13. The answer is \\boxed{13}."
_MOST_SAMPLES, _MOST_TOKENS = 8, 256


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the export is from the checkpoint: tokens, largest and mean |difference| of their log-probabilities."""

    tokens: int
    largest: float
    mean: float


def check_tokenizer(folder: Path) -> Any:
    """Load the folder's tokenizer.

    Raises ExportError when it makes ids that the model has no embedding for, or lacks a chat template or an end token.
    """
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder).get_text_config()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if len(tokenizer) > config.vocab_size:
        raise ExportError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}: not a pair "
            "(beside a qwen2 config.json transformers adds <|endoftext|> to a tokenizer without it)"
        )
    if not tokenizer.chat_template:
        raise ExportError(f"{folder}: the tokenizer has no chat template; give one with --chat-template FILE")
    if tokenizer.eos_token_id is None:
        raise ExportError(f"{folder}: the tokenizer has no end-of-sequence token; generation would never stop")
    return tokenizer


def sample_ids(tokenizer: Any, run: Path) -> list[list[int]]:
    """Token ids to compare on: responses of the run's last validation where there are any, else a fixed text."""
    files = sorted((run / "validation").glob("*.jsonl"), key=lambda file: int(file.stem) if file.stem.isdigit() else -1)
    texts = [_TEXT]
    if files:
        with files[-1].open(encoding="utf-8") as file:
            rows = [json.loads(line) for line, _ in zip(file, range(_MOST_SAMPLES), strict=False)]
        texts = [f"{row['input']}{row['output']}" for row in rows] or texts
    ids = [tokenizer.encode(text, add_special_tokens=False)[:_MOST_TOKENS] for text in texts]
    return [sample for sample in ids if len(sample) > 1] or [list(range(min(len(tokenizer), _MOST_TOKENS)))]


def log_probs(folder: Path, samples: list[list[int]]) -> list[torch.Tensor]:
    """Log-probability of every token given those before it: fp32, [len - 1] a sample. Weights in the dtype on disk."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    found = []
    with torch.inference_mode():
        for sample in samples:
            ids = torch.tensor([sample])
            logits = model(input_ids=ids).logits[0, :-1].float()
            found.append(logits.log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1))
    del model
    gc.collect()
    return found


def compare(reference: list[torch.Tensor], exported: list[torch.Tensor], converted: bool) -> Agreement:
    """Compare two results of `log_probs`.

    converted: whether the dtype changed. Raises ExportError when they differ by more than arithmetic explains.
    """
    difference = (torch.cat(reference) - torch.cat(exported)).abs()
    agreement = Agreement(difference.numel(), float(difference.max()), float(difference.mean()))
    allowed = agreement.mean <= _TOLERANCE_MEAN_ROUNDED if converted else agreement.largest <= _TOLERANCE_SAME
    if not allowed:  # a NaN is not allowed either
        raise ExportError(
            f"the exported model's log-probabilities differ from the checkpoint's by {agreement.mean:.2g} on average "
            f"and {agreement.largest:.2g} at most over {agreement.tokens} tokens"
        )
    return agreement
