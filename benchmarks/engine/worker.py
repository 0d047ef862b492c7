"""Makes updates on a rank of verl's Megatron engine, on request (benchmarks/sides.py).

`python -m benchmarks.engine.worker MODEL TP SEQUENCE_PARALLEL [DTYPE FUSED]`
"""

import asyncio
import sys
import time
from functools import partial
from multiprocessing import shared_memory
from typing import Any

import torch
import torch.distributed as dist
import verl  # noqa: F401  loads the platform plugin
from megatron.core.tensor_parallel import VocabParallelEmbedding
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.config import McoreActorConfig, McoreOptimizerConfig
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender
from verl.workers.utils.losses import ppo_loss

from benchmarks.engine.batch import LEARNING_RATE, Rollouts, Sequence, Shape, make_sequences
from benchmarks.engine.matrix_work import time_products
from benchmarks.sides import serve
from verl_relift.testing.parity.engine_worker import build_engine


def to_tensordict(sequences: list[Sequence], max_tokens: int) -> TensorDict:
    """Return the rollouts in verl's unpadded form.

    Args:
        sequences: the rollouts.
        max_tokens: tokens of a micro-batch.
    """
    jagged = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    masks = jagged([torch.ones_like(s.ids[s.prompt :]) for s in sequences])
    return tu.get_tensordict(
        {
            "input_ids": jagged([s.ids for s in sequences]),
            "position_ids": jagged([torch.arange(len(s.ids)) for s in sequences]),
            "prompts": jagged([s.ids[: s.prompt] for s in sequences]),
            "responses": jagged([s.ids[s.prompt :] for s in sequences]),
            "response_mask": masks,
            "loss_mask": masks,
            "old_log_probs": jagged([s.old_log_probs for s in sequences]),
            "advantages": jagged([s.advantages for s in sequences]),
            "temperature": torch.ones(len(sequences)),
        },
        {
            "use_dynamic_bsz": True,
            "max_token_len_per_gpu": max_tokens,
            "calculate_entropy": False,
            "global_batch_size": len(sequences),
            "use_remove_padding": True,
        },
    )


class Worker:
    """Holds the engine with the optimizer that training uses.

    Args:
        model: a Hugging Face folder.
        tp: tensor-parallel size.
        sequence_parallel: whether sequence parallelism is on.
        dtype: of weights and activations.
        fused: whether log-probs are computed with the output layer.
    """

    def __init__(self, model: str, tp: int, sequence_parallel: bool, dtype: str = "float32", fused: bool = True):
        self._engine = build_engine(
            model, tp, 1, distributed_optimizer=True, sequence_parallel=sequence_parallel, dtype=dtype, fused=fused
        )
        # There is no scheduler, so the rate is constant.
        for group in self._engine.optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        self._vocabulary = self._engine.model_config.hf_config.vocab_size
        self._positions = 0  # number of positions that the model has computed on
        for chunk in self._engine.module:
            for module in chunk.modules():
                if isinstance(module, VocabParallelEmbedding):
                    module.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, arguments: tuple) -> None:
        self._positions += arguments[0].numel()

    def update(self, rollouts: dict[str, int], max_tokens: int, entropy: bool = False) -> dict[str, float]:
        """Make one actor update: forward, backward, clipping, AdamW.

        Args:
            rollouts: fields of `Rollouts`.
            max_tokens: tokens of a micro-batch.
            entropy: whether entropies are computed, too.

        Returns:
            Seconds; on the first rank also loss, gradient norm, and positions computed on, including padding.
        """
        data = to_tensordict(make_sequences(Rollouts(**rollouts), self._vocabulary), max_tokens)
        tu.assign_non_tensor(data, calculate_entropy=entropy)
        config = McoreActorConfig(
            strategy="megatron",
            rollout_n=1,
            ppo_mini_batch_size=len(data),
            use_dynamic_bsz=True,
            ppo_max_token_len_per_gpu=max_tokens,
            optim=McoreOptimizerConfig(lr=LEARNING_RATE, total_training_steps=1),
        )
        with self._engine.train_mode():
            dist.barrier()
            self._positions = 0
            started = time.perf_counter()
            output = self._engine.train_batch(data, partial(ppo_loss, config=config))
            taken = time.perf_counter() - started
        if not self._engine.is_mp_src_rank_with_outputs():
            return {"seconds": taken}
        norm = float(output["metrics"]["grad_norm"])
        return {"seconds": taken, "loss": sum(output["loss"]), "grad_norm": norm, "positions": self._positions}

    def log_prob(self, rollouts: dict[str, int], max_tokens: int) -> dict[str, float]:
        """Return the seconds to compute the log-probs of every token; arguments are those of `update`."""
        data = to_tensordict(make_sequences(Rollouts(**rollouts), self._vocabulary), max_tokens)
        with self._engine.eval_mode():
            dist.barrier()
            started = time.perf_counter()
            self._engine.infer_batch(data)
            return {"seconds": time.perf_counter() - started}

    def products(self, shape: dict[str, int], tokens: int) -> dict[str, float]:
        """Return `benchmarks.engine.matrix_work.time_products`; `shape` has the fields of `Shape`."""
        return time_products(Shape(**shape), tokens)

    def send_weights(self, handle: str, bucket_megabytes: int) -> dict[str, float]:
        """Send the weights like training and return when that began and ended, in seconds of the monotonic clock."""
        began = time.monotonic()
        sender = BucketedWeightSender(handle, bucket_megabytes, use_shm=True)
        asyncio.run(sender.async_send_weights(self._engine.get_per_tensor_param()[0]))
        return {"began": began, "ended": time.monotonic()}

    def open_segment(self) -> dict[str, Any]:
        """Create a shared segment of the weights' size and return its name and bytes."""
        weights = [
            p.detach().reshape(-1).view(torch.uint8) for chunk in self._engine.module for p in chunk.parameters()
        ]
        self._bytes = torch.cat(weights)
        self._segment = shared_memory.SharedMemory(create=True, size=len(self._bytes))
        return {"name": self._segment.name, "bytes": len(self._bytes)}

    def copy_in(self) -> dict[str, float]:
        """Return the seconds to copy as many bytes as the weights have into the segment, whose pages are mapped."""
        target = torch.frombuffer(self._segment.buf, dtype=torch.uint8)[: len(self._bytes)]
        target.copy_(self._bytes)  # maps the pages
        began = time.monotonic()
        target.copy_(self._bytes)
        return {"seconds": time.monotonic() - began}

    def close_segment(self) -> None:
        """Remove the segment."""
        self._segment.close()
        self._segment.unlink()


def start() -> dict[str, Any]:
    """Join the process group, build the engine, and return the worker's functions."""
    model, tp, sequence_parallel, *others = sys.argv[1:]
    dtype, fused = others or ("float32", "true")
    dist.init_process_group("cpu:gloo")
    worker = Worker(model, int(tp), sequence_parallel == "true", dtype, fused == "true")
    names = ("update", "log_prob", "products", "send_weights", "open_segment", "copy_in", "close_segment")
    return {name: getattr(worker, name) for name in names}


if __name__ == "__main__":
    serve(start)
