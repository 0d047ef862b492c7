"""Defines the models and rollouts of the engine's benchmarks; every process builds the same ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

CLIP_RATIO, DUAL_CLIP = 0.2, 3.0  # verl's defaults for the clipped objective
LEARNING_RATE, WEIGHT_DECAY, BETAS, EPSILON, CLIP_GRAD = 1e-5, 0.01, (0.9, 0.999), 1e-8, 1.0
MAX_TOKENS = 16_384  # tokens of a micro-batch, as in config/platform/cpu.yaml


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2 with grouped-query attention and untied embeddings."""

    hidden: int
    layers: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads


SHAPES = {
    "20M": Shape(hidden=512, layers=6, ffn=1280, heads=8, kv_heads=4, vocabulary=4096),
    # verl_relift/quickstart/base_model.py
    "quickstart": Shape(hidden=128, layers=2, ffn=256, heads=4, kv_heads=2, vocabulary=32),
}


@dataclass(frozen=True)
class Rollouts:
    """A batch of sequences whose response lengths are spread evenly from the shortest to the longest, in random order.

    Attributes:
        sequences: number of sequences.
        prompt: tokens of each prompt.
        shortest: tokens of the shortest response.
        longest: tokens of the longest response.
    """

    sequences: int
    prompt: int
    shortest: int
    longest: int

    def lengths(self) -> list[int]:
        """Return the tokens of each sequence, including the prompt."""
        responses = torch.linspace(self.shortest, self.longest, self.sequences).round().long()
        order = torch.randperm(self.sequences, generator=torch.Generator().manual_seed(5))
        return [self.prompt + int(n) for n in responses[order]]


ROLLOUTS = {
    "20M": Rollouts(sequences=16, prompt=32, shortest=20, longest=512),
    "quickstart": Rollouts(sequences=128, prompt=10, shortest=10, longest=64),
}


@dataclass(frozen=True)
class Sequence:
    """One rollout.

    Attributes:
        ids: int64 [tokens].
        prompt: number of prompt tokens.
        old_log_probs: float32 [response tokens].
        advantages: float32 [response tokens].
    """

    ids: torch.Tensor
    prompt: int
    old_log_probs: torch.Tensor
    advantages: torch.Tensor


def make_sequences(rollouts: Rollouts, vocabulary: int) -> list[Sequence]:
    """Return rollouts of random tokens. Their old log-probs scatter around uniform ones, so that some ratios clip.

    Args:
        rollouts: number and lengths of the sequences.
        vocabulary: number of tokens to draw from.
    """
    generator = torch.Generator().manual_seed(3)
    sequences = []
    for length in rollouts.lengths():
        response = length - rollouts.prompt
        sequences.append(
            Sequence(
                ids=torch.randint(2, vocabulary, (length,), generator=generator),
                prompt=rollouts.prompt,
                old_log_probs=0.2 * torch.randn(response, generator=generator) - torch.tensor(float(vocabulary)).log(),
                advantages=torch.randn(1, generator=generator).expand(response).clone(),
            )
        )
    return sequences


def configuration(shape: Shape) -> Any:
    """Return the `Qwen2Config` of a shape."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )


def save_model(shape: Shape, folder: Path) -> None:
    """Write a randomly initialized model with the quickstart's tokenizer, which no measurement uses."""
    from transformers import Qwen2ForCausalLM

    from verl_relift.quickstart.base_model import build_tokenizer

    torch.manual_seed(7)
    Qwen2ForCausalLM(configuration(shape)).float().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
