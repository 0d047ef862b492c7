"""Log-probs and entropies of tokens from hidden states, without the logits of a whole micro-batch.

The forward pass computes the logits of some positions at a time and keeps three numbers of each position. The backward
pass computes the logits again, those of some tokens of the vocabulary at a time: so each part of the weight's gradient
is one product over all positions, rounded once, and nothing is added up in bf16. It leaves out positions that no loss
reads, such as those of prompts.
"""

import torch
import torch.distributed as dist
from torch import Tensor

# Bytes of a block of fp32 logits; two or three such blocks exist at a time. On a CPU they stay near the caches.
BLOCK_BYTES_CPU = 32 << 20
BLOCK_BYTES = 256 << 20
ROWS = 128  # matrix products are slow with fewer rows


def block_bytes(hidden: Tensor) -> int:
    """Return the bytes of a block of logits on the device of `hidden`."""
    return BLOCK_BYTES_CPU if hidden.is_cpu else BLOCK_BYTES


def log_probs_and_entropies(
    hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float, group: dist.ProcessGroup, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the log-prob of each label, and the entropy in nats of each position's distribution.

    Gradients flow to `hidden` and `weight`. That of `hidden` is this rank's part of the sum over the group.

    Args:
        hidden: [positions, hidden size], the same on all ranks of the group.
        weight: [vocabulary / ranks, hidden size], this rank's rows of the output layer, in the dtype of `hidden`.
        labels: [positions] int64, ids of the whole vocabulary.
        temperature: divides the logits.
        group: the tensor-parallel ranks, in the order of their rows.
        entropy: whether entropies are wanted.

    Returns:
        fp32 [positions] each; None for the entropies if they are not wanted.
    """
    log_probs, entropies = _Vocabulary.apply(hidden, weight, labels, temperature, group, entropy)
    return log_probs, entropies if entropy else None


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b` in fp32, of matrices in fp32, or in bf16 or fp16 without rounding the result to it."""
    if a.dtype == torch.float32:
        return a @ b
    if not a.is_cpu:
        return torch.mm(a, b, out_dtype=torch.float32)
    if a.dtype != torch.bfloat16:
        return a.float() @ b.float()
    # oneDNN multiplies fp32 operands as bf16, which these are, and keeps the sums in fp32.
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        return a.float() @ b.float()
    finally:
        matmul.fp32_precision = before


class _Vocabulary(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels, temperature, group, entropy):
        # `multiply` would convert it for every block.
        operand = weight.float() if hidden.is_cpu else weight
        rows = max(ROWS, block_bytes(hidden) // (4 * len(weight)))
        local = labels - dist.get_rank(group) * len(weight)
        of_blocks = [
            _statistics(multiply(h, operand.t()), of_block, temperature, entropy)
            for h, of_block in zip(hidden.split(rows), local.split(rows), strict=True)
        ]
        highest, *sums = (torch.cat(of_block) for of_block in zip(*of_blocks, strict=True))
        total, weighted, label = _over_ranks(highest, *sums, inside=_inside(local, len(weight)), group=group)
        log_probs = label - total.log()
        entropies = total.log() - weighted / total
        ctx.save_for_backward(hidden, weight, local, highest + total.log(), entropies)
        ctx.temperature, ctx.entropy = temperature, entropy
        return log_probs, entropies

    @staticmethod
    def backward(ctx, of_log_probs, of_entropies):
        hidden, weight, local, log_total, entropies = ctx.saved_tensors
        positions = len(hidden)
        read = (of_log_probs != 0) | (of_entropies != 0)
        of_log_probs, of_entropies, hidden, local, log_total, entropies = (
            one[read] for one in (of_log_probs, of_entropies, hidden, local, log_total, entropies)
        )
        gradient = torch.zeros_like(hidden, dtype=torch.float32)
        weight_gradient = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        columns = max(ROWS, block_bytes(hidden) // (4 * max(1, len(hidden))))
        for first in range(0, len(weight), columns):
            rows = weight[first : first + columns]
            # d log p(y) / d logit_j = [j = y] - p_j and d H / d logit_j = -p_j (log p_j + H)
            logits = _scaled(multiply(hidden, rows.t()), ctx.temperature).sub_(log_total[:, None])
            probs = logits.exp()
            if ctx.entropy:
                logits.mul_(of_entropies[:, None]).add_((of_log_probs + of_entropies * entropies)[:, None])
                of_logits = logits.mul_(probs).neg_()
            else:
                of_logits = probs.mul_(-of_log_probs[:, None])
            place = local - first
            at_label = torch.where(_inside(place, len(rows)), of_log_probs, 0.0)
            of_logits.scatter_add_(1, place.clamp(0, len(rows) - 1)[:, None], at_label[:, None])
            of_logits = _scaled(of_logits, ctx.temperature).to(hidden.dtype)
            del logits, probs
            if hidden.dtype == torch.float32:
                gradient.addmm_(of_logits, rows)
            else:
                gradient += of_logits @ rows
            if weight_gradient is not None:
                torch.mm(of_logits.t(), hidden, out=weight_gradient[first : first + columns])
            del of_logits  # before the next block
        of_hidden = hidden.new_zeros(positions, hidden.shape[1])
        of_hidden[read] = gradient.to(hidden.dtype)
        return of_hidden, weight_gradient, None, None, None, None


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1.0 else logits.div_(temperature)


def _inside(local: Tensor, size: int) -> Tensor:
    return (local >= 0) & (local < size)


def _statistics(logits: Tensor, local: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, ...]:
    """Return, of each row, the maximum m, sum exp(x - m), sum (x - m) exp(x - m) and the label's x - m."""
    highest = _scaled(logits, temperature).amax(-1)
    logits.sub_(highest[:, None])
    label = logits.gather(1, local.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
    if not entropy:
        total = logits.exp_().sum(-1)
        return highest, total, torch.zeros_like(total), label
    exponentials = logits.exp()
    total = exponentials.sum(-1)
    return highest, total, exponentials.mul_(logits).sum(-1), label


def _over_ranks(
    highest: Tensor, total: Tensor, weighted: Tensor, label: Tensor, inside: Tensor, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor, Tensor]:
    """Add up over the ranks, relative to the highest logit of all, which replaces `highest` in place."""
    own = highest.clone()
    dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=group)
    lower = own - highest
    share = lower.exp()
    sums = torch.stack([total * share, (weighted + lower * total) * share, torch.where(inside, label + lower, 0.0)])
    dist.all_reduce(sums, group=group)
    return sums.unbind()
