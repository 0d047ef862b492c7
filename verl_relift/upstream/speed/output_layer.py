"""The output layer of verl's Megatron engine together with log-probs and entropies, in blocks (`vocabulary.py`).

This is what verl's `use_fused_kernels` turns on, by the hook that Megatron's GPTModel has for it. verl's own kernels
need Triton, a hidden size divisible by 128, and sequence parallelism where there is tensor parallelism: without it
they leave out the sum of the hidden states' gradient over the ranks.
"""

import functools
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

from ..registry import Where, patch, replace
from .vocabulary import block_bytes, log_probs_and_entropies

_entropy_wanted: ContextVar[bool] = ContextVar("entropy wanted", default=True)


@patch(
    where=Where.EVERYWHERE,
    replaces=(
        "verl.models.mcore.model_forward_fused:fused_output_processor",
        "verl.models.mcore.model_forward_fused:fused_forward_model_engine",
    ),
    versions=("verl", "megatron-core"),
    upstream="its fused log-probs and entropies are Triton kernels, which need a GPU, a hidden size divisible by 128, "
    "and sequence parallelism under tensor parallelism, and compute the entropy whether it is wanted or not",
    canary="test_verl_still_fuses_the_output_layer_by_triton_kernels_only",
)
def compute_in_blocks(module: ModuleType) -> None:
    make_forward = module.fused_forward_model_engine

    @functools.wraps(make_forward)
    def fused_forward_model_engine(*args, **kwargs):
        forward = make_forward(*args, **kwargs)

        @functools.wraps(forward)
        def fused_forward(*args, calculate_entropy: bool, **kwargs):
            token = _entropy_wanted.set(calculate_entropy)
            try:
                return forward(*args, calculate_entropy=calculate_entropy, **kwargs)
            finally:
                _entropy_wanted.reset(token)

        return fused_forward

    def fused_output_processor(*, hidden_states, output_layer, output_weight, labels, context, config, **_unused):
        compute = _at_once if _is_small(hidden_states, output_layer) else _in_blocks
        weight = output_layer.weight if output_weight is None else output_weight
        log_probs, entropies = compute(hidden_states, output_layer, weight, labels, context.temperature)
        return module.CausalLMOutputForPPO(log_probs=log_probs, entropy=entropies)

    replace(module, "fused_forward_model_engine", fused_forward_model_engine)
    replace(module, "fused_output_processor", fused_output_processor)


def _is_small(hidden: Tensor, output_layer) -> bool:
    """Whether the logits are as small as a block's, and are the same to the last bit by verl's own functions."""
    positions = hidden.shape[0] * (output_layer.tp_group.size() if output_layer.sequence_parallel else 1)
    fp32 = hidden.dtype == torch.float32
    return fp32 and positions * output_layer.output_size_per_partition * 4 <= block_bytes(hidden)


def _at_once(hidden: Tensor, output_layer, weight: Tensor, labels: Tensor, temperature: float):
    """As verl's engine does it without fused kernels."""
    from verl.utils.megatron.tensor_parallel import vocab_parallel_entropy, vocab_parallel_log_probs_from_logits

    logits = output_layer(hidden, weight=weight)[0].transpose(0, 1).contiguous()
    logits.div_(temperature)
    entropies = None
    if _entropy_wanted.get():
        kept, entropies = logits.clone(), vocab_parallel_entropy(logits)
        logits = kept
    return vocab_parallel_log_probs_from_logits(logits, labels), entropies


def _in_blocks(hidden: Tensor, output_layer, weight: Tensor, labels: Tensor, temperature: float):
    from megatron.core.tensor_parallel import mappings

    group = output_layer.tp_group
    if output_layer.sequence_parallel:
        hidden = mappings.gather_from_sequence_parallel_region(hidden, group=group)
    else:
        hidden = mappings.copy_to_tensor_model_parallel_region(hidden, group=group)
    return log_probs_and_entropies(
        hidden.reshape(-1, hidden.shape[-1]), weight, labels.reshape(-1), temperature, group, _entropy_wanted.get()
    )
