"""Models and rollouts that the engine is measured on; every process builds the same from the same numbers."""

from dataclasses import dataclass
from pathlib import Path

import torch

CLIP_RATIO, DUAL_CLIP = 0.2, 3.0  # verl's defaults of the clipped objective
LEARNING_RATE, WEIGHT_DECAY, BETAS, EPSILON, CLIP_GRAD = 1e-5, 0.01, (0.9, 0.999), 1e-8, 1.0
MAX_TOKENS = 16_384  # tokens of a micro-batch, as in config/platform/cpu.yaml


@dataclass(frozen=True)
class Shape:
    """Of a Qwen2 with grouped-query attention and untied embeddings."""

    hidden: int
    layers: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


SHAPES = {
    "20M": Shape(hidden=512, layers=6, ffn=1280, heads=8, kv_heads=4, vocabulary=4096),
    # verl_relift/quickstart/base_model.py
    "quickstart": Shape(hidden=128, layers=2, ffn=256, heads=4, kv_heads=2, vocabulary=32),
}


@dataclass(frozen=True)
class Rollouts:
    """So many sequences; response lengths are spread evenly from the shortest to the longest, in a shuffled order."""

    sequences: int
    prompt: int
    shortest: int
    longest: int

    def lengths(self) -> list[int]:
        """Tokens of each sequence, prompt included."""
        responses = torch.linspace(self.shortest, self.longest, self.sequences).round().long()
        order = torch.randperm(self.sequences, generator=torch.Generator().manual_seed(5))
        return [self.prompt + int(n) for n in responses[order]]


ROLLOUTS = {
    "20M": Rollouts(sequences=16, prompt=32, shortest=20, longest=512),
    "quickstart": Rollouts(sequences=128, prompt=10, shortest=10, longest=64),
}


@dataclass(frozen=True)
class Sequence:
    """One rollout: ``ids`` [tokens] int64; of its response tokens ``old_log_probs`` and ``advantages``, float32."""

    ids: torch.Tensor
    prompt: int
    old_log_probs: torch.Tensor
    advantages: torch.Tensor


def make_sequences(rollouts: Rollouts, vocabulary: int) -> list[Sequence]:
    """Random tokens. Old log-probs lie around those of a uniform distribution, so that some ratios are clipped."""
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


def configuration(shape: Shape):
    """The `Qwen2Config` of a shape, with untied embeddings."""
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
    """Write a randomly initialised model, with the quickstart's tokenizer, which no figure uses."""
    from transformers import Qwen2ForCausalLM

    from verl_relift.quickstart.base_model import build_tokenizer

    torch.manual_seed(7)
    Qwen2ForCausalLM(configuration(shape)).float().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
