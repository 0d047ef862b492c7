"""Compares an exported folder with its checkpoint: same tokens, same log-probabilities."""

import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .errors import ExportError

# Differences of log-probabilities that arithmetic explains. With the same dtype only the order of sums can differ, so
# the limit is on the largest difference. A conversion to 16 bits rounds every weight (bf16 to 8 significant bits), so
# the limit is on the mean difference.
_TOLERANCE_SAME, _TOLERANCE_MEAN_ROUNDED = 1e-4, 0.05
_TEXT = "What is 7*2+3-4? 7+7=14, 14+3=17, 17-4=13. The answer is \\boxed{13}."
_MOST_SAMPLES, _MOST_TOKENS = 8, 256


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the export is from the checkpoint.

    Attributes:
        tokens: number of compared tokens.
        largest: largest absolute difference of a token's log-probability.
        mean: mean absolute difference.
    """

    tokens: int
    largest: float
    mean: float


def check_tokenizer(folder: Path) -> Any:
    """Load and check the tokenizer of a folder.

    Args:
        folder: a Hugging Face folder.

    Returns:
        The transformers tokenizer.

    Raises:
        ExportError: the tokenizer has more tokens than the model has embeddings, no chat template, or no end token.
    """
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder).get_text_config()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if len(tokenizer) > config.vocab_size:
        raise ExportError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens but the model only {config.vocab_size} embeddings; "
            "use the tokenizer that belongs to the model (for qwen2, transformers adds a missing <|endoftext|>)"
        )
    if not tokenizer.chat_template:
        raise ExportError(f"{folder}: the tokenizer has no chat template; give one with --chat-template FILE")
    if tokenizer.eos_token_id is None:
        raise ExportError(f"{folder}: the tokenizer has no eos_token, so generation would never stop; set one")
    return tokenizer


def sample_ids(tokenizer: Any, run: Path) -> list[list[int]]:
    """Return token ids to compare on: responses of the run's last validation if there are any, else a fixed text.

    Args:
        tokenizer: the exported tokenizer.
        run: folder of the run.

    Returns:
        A list of token ids per sample, each of at least two tokens.
    """
    files = sorted((run / "validation").glob("*.jsonl"), key=lambda file: int(file.stem) if file.stem.isdigit() else -1)
    texts = [_TEXT]
    if files:
        with files[-1].open(encoding="utf-8") as file:
            rows = [json.loads(line) for line, _ in zip(file, range(_MOST_SAMPLES), strict=False)]
        texts = [f"{row['input']}{row['output']}" for row in rows] or texts
    ids = [tokenizer.encode(text, add_special_tokens=False)[:_MOST_TOKENS] for text in texts]
    return [sample for sample in ids if len(sample) > 1] or [list(range(min(len(tokenizer), _MOST_TOKENS)))]


def log_probs(folder: Path, samples: list[list[int]]) -> list[torch.Tensor]:
    """Compute the log-probability of every token given those before it.

    Args:
        folder: a Hugging Face folder; its weights keep the dtype that they have on disk.
        samples: token ids of each sample.

    Returns:
        float32 [length - 1] per sample.
    """
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

    Args:
        reference: log-probabilities of the checkpoint.
        exported: log-probabilities of the exported folder.
        converted: whether the export changed the dtype.

    Raises:
        ExportError: they differ by more than arithmetic explains.
    """
    difference = (torch.cat(reference) - torch.cat(exported)).abs()
    agreement = Agreement(difference.numel(), float(difference.max()), float(difference.mean()))
    allowed = agreement.mean <= _TOLERANCE_MEAN_ROUNDED if converted else agreement.largest <= _TOLERANCE_SAME
    if not allowed:  # also true for NaN
        raise ExportError(
            f"the exported model's log-probabilities differ from the checkpoint's by {agreement.mean:.2g} on average "
            f"and by {agreement.largest:.2g} at most, over {agreement.tokens} tokens"
        )
    return agreement
