"""The batch and the tiny models on which parity is measured."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 64
ENTROPY_COEFF = 1e-3
SPLICE_WEIGHT = 0.3
SPLITS = (64, 130, 100_000)  # tokens per micro-batch, for many micro-batches, a few, and one

# How log-probs and entropies are computed: by verl's functions from the logits that the model returns; where the model
# has them, as small micro-batches do it (`upstream/speed/output_layer.py`); and in blocks of logits, as large ones.
OUTPUT_LAYERS = ("apart", "at once", "in blocks")

# Of a guided policy loss: what multiplies verl's loss, and the term of the hint's tokens.
OWN_COEFF, HINT_COEFF = 0.8, 0.3

SHAPE = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    rms_norm_eps=1e-6,
    bos_token_id=None,
    eos_token_id=1,
    pad_token_id=0,
)


def make_model(kind: str) -> torch.nn.Module:
    """Build a randomly initialized fp32 model.

    Args:
        kind: `qwen2`, `tied` (a Qwen2 that shares its embeddings), `qwen3` or `llama`.
    """
    torch.manual_seed(7)
    if kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=False))
    elif kind == "tied":
        model = Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True))
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=False))
    else:
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=False))
    for name, parameter in model.named_parameters():
        # Large enough that no parameter is near zero, norms and biases included.
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    return model.float()


def make_batch() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Draw eight pairs of 3 to 60 tokens.

    Returns:
        (prompts, responses), int64 token ids.
    """
    generator = torch.Generator().manual_seed(3)
    lengths = [(2, 1), (3, 9), (8, 30), (20, 40), (5, 5), (11, 2), (4, 17), (9, 21)]
    draw = lambda n: torch.randint(2, VOCABULARY, (n,), generator=generator)  # noqa: E731
    return [draw(p) for p, _ in lengths], [draw(r) for _, r in lengths]


def make_policy_inputs() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Draw the inputs of a policy loss for the batch's responses.

    Returns:
        (old log-probs, advantages), one float32 tensor per response with a value per token. A response's advantages are
        equal. The old log-probs are far off on some tokens, so that clipping matters.
    """
    generator = torch.Generator().manual_seed(11)
    responses = make_batch()[1]
    log_probs = [-4.0 + 1.5 * torch.randn(len(r), generator=generator) for r in responses]
    advantages = [torch.randn(1, generator=generator).expand(len(r)).clone() for r in responses]
    return log_probs, advantages


def hint_lengths() -> list[int]:
    """Return how many tokens at the head of each response are a hint: half of them."""
    return [len(response) // 2 for response in make_batch()[1]]


def joined_rows() -> tuple[int, ...]:
    """Return which sequences of the batch are demonstrations that have joined groups."""
    return (2, 5, 7)


def row_rewards() -> list[float]:
    """Return the reward of each sequence: 1 of a demonstration, and of every second rollout."""
    return [1.0 if row in joined_rows() or row % 2 else 0.0 for row in range(len(make_batch()[1]))]
