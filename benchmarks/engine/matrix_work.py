"""The matrix products of an actor update: how many, of which shapes, how many floating-point operations."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from benchmarks.engine.batch import Shape


@dataclass(frozen=True)
class Linear:
    """A linear layer [inputs -> outputs] that occurs ``count`` times in the model."""

    name: str
    inputs: int
    outputs: int
    count: int

    def flops(self, tokens: int) -> int:
        """Of one occurrence, forward and backward: the output, the input's gradient, the weight's gradient."""
        return 3 * 2 * tokens * self.inputs * self.outputs


def linears(shape: Shape) -> list[Linear]:
    """The model's linear layers as Megatron has them: query, key and value are one, gate and up are one."""
    attended = shape.heads * shape.head_dim
    return [
        Linear("qkv", shape.hidden, attended + 2 * shape.kv_heads * shape.head_dim, shape.layers),
        Linear("attention output", attended, shape.hidden, shape.layers),
        Linear("gate and up", shape.hidden, 2 * shape.ffn, shape.layers),
        Linear("down", shape.ffn, shape.hidden, shape.layers),
        Linear("head", shape.hidden, shape.vocabulary, 1),
    ]


def linear_flops(shape: Shape, tokens: int) -> int:
    """Of all linear layers, forward and backward."""
    return sum(linear.count * linear.flops(tokens) for linear in linears(shape))


def attention_flops(shape: Shape, lengths: Iterable[int]) -> int:
    """Of causal attention within sequences of these lengths, forward and backward.

    Forward are two products (scores, values), backward four, each over the pairs of a position with itself and those
    before it. What a kernel computes again or computes for padding is not counted.
    """
    pairs = sum(n * (n + 1) // 2 for n in lengths)
    return shape.layers * 6 * 2 * pairs * shape.heads * shape.head_dim


def time_products(shape: Shape, tokens: int, repeats: int = 2) -> dict[str, float]:
    """Seconds that ``torch.mm`` needs for the products of each kind of linear layer, every occurrence counted.

    The operands are laid out as a linear layer and its gradients have them. The fastest of ``repeats``.
    """
    taken = {}
    for linear in linears(shape):
        x = torch.randn(tokens, linear.inputs)
        weight = torch.randn(linear.outputs, linear.inputs)
        gradient = torch.randn(tokens, linear.outputs)
        products = ((x, weight.t()), (gradient, weight), (gradient.t(), x))
        taken[linear.name] = linear.count * sum(min(_seconds(a, b) for _ in range(repeats)) for a, b in products)
    return taken


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    started = time.perf_counter()
    torch.mm(a, b)
    return time.perf_counter() - started
