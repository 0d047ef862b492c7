"""Makes the same update with plain Hugging Face and torch, on request (benchmarks/sides.py).

`python -m benchmarks.engine.hf MODEL FUSED`
"""

import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from benchmarks.engine.batch import (
    BETAS,
    CLIP_GRAD,
    CLIP_RATIO,
    DUAL_CLIP,
    EPSILON,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Rollouts,
    Sequence,
    make_sequences,
)
from benchmarks.sides import serve


def micro_batches(sequences: list[Sequence], max_tokens: int) -> list[list[Sequence]]:
    """Sort sequences by length and group as many as fit when padded to the longest of the group."""
    batches: list[list[Sequence]] = []
    for sequence in sorted(sequences, key=lambda s: len(s.ids), reverse=True):
        if not batches or (len(batches[-1]) + 1) * len(batches[-1][0].ids) > max_tokens:
            batches.append([])
        batches[-1].append(sequence)
    return batches


def policy_loss(logits: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
    """Return the clipped objective summed over response tokens.

    Args:
        logits: [sequences, tokens, vocabulary].
        sequences: the micro-batch.
    """
    ids = pad_sequence([s.ids for s in sequences], batch_first=True)
    log_probs = -F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    log_probs = log_probs.view(ids.shape[0], -1)
    of_responses = torch.cat([row[s.prompt - 1 : len(s.ids) - 1] for row, s in zip(log_probs, sequences, strict=True)])
    advantages = torch.cat([s.advantages for s in sequences])
    ratio = (of_responses - torch.cat([s.old_log_probs for s in sequences])).clamp(-20, 20).exp()
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP_RATIO, 1 + CLIP_RATIO))
    return torch.where(advantages < 0, torch.minimum(loss, -DUAL_CLIP * advantages), loss).sum()


class Worker:
    """Holds the model with torch's AdamW, which decays no vectors, as in Megatron."""

    def __init__(self, model: str, fused: bool):
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa")
        parameters = list(self._model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, fused=fused or None)

    def update(self, rollouts: dict[str, int], max_tokens: int) -> dict[str, float]:
        """Make one actor update.

        Padding is on the right, where causal attention does not see it, so that no mask is needed.

        Args:
            rollouts: fields of `Rollouts`.
            max_tokens: tokens of a micro-batch, padding included.

        Returns:
            Seconds, loss and gradient norm.
        """
        sequences = make_sequences(Rollouts(**rollouts), self._model.config.vocab_size)
        batches = micro_batches(sequences, max_tokens)
        tokens = sum(len(s.advantages) for s in sequences)
        started = time.perf_counter()
        total = 0.0
        for batch in batches:
            ids = pad_sequence([s.ids for s in batch], batch_first=True)
            loss = policy_loss(self._model(input_ids=ids, use_cache=False).logits, batch) / tokens
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), CLIP_GRAD)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return {"seconds": time.perf_counter() - started, "loss": total, "grad_norm": float(norm)}


def start() -> dict[str, Any]:
    """Load the model and return the worker's function."""
    model, fused = sys.argv[1:]
    return {"update": Worker(model, fused == "true").update}


if __name__ == "__main__":
    serve(start)
