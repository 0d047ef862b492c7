"""Moves a step's rollouts through its own Ray and TransferQueue; `python -m benchmarks.engine.transfer` starts it."""

import itertools
import os
import sys
import time
from functools import partial
from typing import Any

import psutil
import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict

from benchmarks.sides import serve

# What the trainer reads in addition to the actor: for advantages, hardest questions and metrics.
READS = (
    ["uid", "response_mask", "rm_scores", "rollout_log_probs"],
    ["uid", "rm_scores", "extra_fields"],
    ["prompts", "responses", "response_mask", "rm_scores", "num_turns"],
)


def rollouts(rows: int) -> TensorDict:
    """Return rollouts with prompts of 10 and responses of 15 to 44 tokens, in the columns of `verl_relift.rollout`."""
    lengths = torch.randint(15, 45, (rows,), generator=torch.Generator().manual_seed(rows)).tolist()
    jagged = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    of_response = lambda make: jagged([make(n) for n in lengths])  # noqa: E731
    return TensorDict(
        {
            "prompts": jagged([torch.arange(10)] * rows),
            "responses": of_response(torch.arange),
            "input_ids": of_response(lambda n: torch.arange(10 + n)),
            "position_ids": of_response(lambda n: torch.arange(10 + n)),
            "response_mask": of_response(lambda n: torch.ones(n, dtype=torch.int64)),
            "loss_mask": of_response(lambda n: torch.ones(n, dtype=torch.int64)),
            "rm_scores": of_response(torch.zeros),
            "rollout_log_probs": of_response(torch.rand),
            "num_turns": torch.full((rows,), 2),
            "uid": NonTensorStack(*[f"1-{i // 8:06d}" for i in range(rows)]),
            "extra_fields": NonTensorStack(*[{"reward_extra_info": {"score": 1.0, "acc": 1.0}} for _ in range(rows)]),
        },
        batch_size=[rows],
    )


def cpu_seconds() -> float:
    """Return the processor seconds of this process and its descendants."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def start() -> dict[str, Any]:
    """Start Ray and TransferQueue and return the worker's function."""
    if sys.argv[1] == "packed":
        from verl_relift.upstream.speed.transfer_queue import install_after_import
    else:
        from verl_relift.upstream.fixes.transfer_queue import install_after_import
    install_after_import()
    one_thread = {"OMP_NUM_THREADS": "1", "TQ_NUM_THREADS": "1"}
    os.environ.update(one_thread)
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": one_thread})
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))
    numbers = itertools.count()

    def step(rows: int) -> dict[str, float]:
        fields, number = rollouts(rows), next(numbers)
        keys = [f"{number}-{i}" for i in range(rows)]
        tags = [{"status": "success", "seq_len": 40, "prompt_len": 10, "response_len": 30}] * rows
        began, used = time.perf_counter(), cpu_seconds()
        tq.kv_batch_put(keys=keys, partition_id="train", fields=fields, tags=tags)
        tq.kv_batch_get(keys=keys, partition_id="train")
        for columns in READS:
            tq.kv_batch_get(keys=keys, partition_id="train", select_fields=columns)
        tq.kv_clear(keys=keys, partition_id="train")
        return {"seconds": time.perf_counter() - began, "core-seconds": cpu_seconds() - used}

    return {"step": step}


if __name__ == "__main__":
    serve(start)
