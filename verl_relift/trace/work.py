"""What one rank is to do, in plain values that fit into a file."""

from collections.abc import Sequence
from dataclasses import dataclass

DIVISOR = 64  # of a sequence's length, so that parallelism pads nothing


@dataclass(frozen=True)
class Work:
    """A rank and the micro-batches of its passes.

    Attributes:
        rank: global rank of the process.
        world_size: number of ranks.
        data_parallel_size: number of ranks that share a batch.
        pipeline_size: number of pipeline stages.
        micro_batches: micro-batches of an update.
        transformer_engine: whether the layers stand for Transformer Engine's.
        update: lengths of the sequences of one micro-batch of the RL update; none: there is no RL update.
        supervised: the same for demonstrations.
        log_probs: the same for the pass that computes old log-probs.
        own_step: demonstrations have an optimizer step of their own; otherwise they join the RL update.
        separate_moments: that step has AdamW moments of its own.
    """

    rank: int
    world_size: int
    data_parallel_size: int
    pipeline_size: int
    micro_batches: int
    transformer_engine: bool
    update: Sequence[int] = ()
    supervised: Sequence[int] = ()
    log_probs: Sequence[int] = ()
    own_step: bool = True
    separate_moments: bool = False


def equal_lengths(tokens: int, longest: int) -> list[int]:
    """Return lengths of equal sequences that fill a micro-batch.

    Args:
        tokens: the size of the micro-batch.
        longest: the length that no sequence exceeds.
    """
    count = -(-tokens // longest)
    return [max(DIVISOR, tokens // count // DIVISOR * DIVISOR)] * count
