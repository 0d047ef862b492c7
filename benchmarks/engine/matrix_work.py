"""Counts and times the matrix products of an actor update."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from benchmarks.engine.batch import Shape


@dataclass(frozen=True)
class Linear:
    """A linear layer [inputs -> outputs] that occurs `count` times in the model."""

    name: str
    inputs: int
    outputs: int
    count: int

    def flops(self, tokens: int) -> int:
        """Return the operations of one occurrence: output, gradient of the input, gradient of the weight."""
        return 3 * 2 * tokens * self.inputs * self.outputs


def linears(shape: Shape) -> list[Linear]:
    """Return the model's linear layers as in Megatron, which fuses query, key and value, and gate and up."""
    attended = shape.heads * shape.head_dim
    return [
        Linear("qkv", shape.hidden, attended + 2 * shape.kv_heads * shape.head_dim, shape.layers),
        Linear("attention output", attended, shape.hidden, shape.layers),
        Linear("gate and up", shape.hidden, 2 * shape.ffn, shape.layers),
        Linear("down", shape.ffn, shape.hidden, shape.layers),
        Linear("head", shape.hidden, shape.vocabulary, 1),
    ]


def linear_flops(shape: Shape, tokens: int) -> int:
    """Return the operations of all linear layers, forward and backward."""
    return sum(linear.count * linear.flops(tokens) for linear in linears(shape))


def attention_flops(shape: Shape, lengths: Iterable[int]) -> int:
    """Return the operations of causal attention, forward and backward.

    The forward pass has two products (scores, values) and the backward pass four, each over the pairs of a position
    with itself and earlier positions. Recomputation and padding are not counted.

    Args:
        shape: the model.
        lengths: tokens of each sequence.
    """
    pairs = sum(n * (n + 1) // 2 for n in lengths)
    return shape.layers * 6 * 2 * pairs * shape.heads * shape.head_dim


def time_products(shape: Shape, tokens: int, repeats: int = 2) -> dict[str, float]:
    """Return the seconds that torch.mm needs for the products of each kind of linear layer, all occurrences counted.

    The operands have the memory layout of a linear layer and its gradients.

    Args:
        shape: the model.
        tokens: rows of the operands.
        repeats: number of timings, of which the fastest counts.
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
