"""One rank of the product's training engine, in this process, from the product's own configuration."""

import gc
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import verl  # noqa: F401  loads the platform plugin
from omegaconf import DictConfig, OmegaConf
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss

from verl_relift.actor.worker import _engine_loss
from verl_relift.run.composition import compose_config
from verl_relift.testing.parity.ranks import free_port

ONE_RANK = (
    "trainer.n_gpus_per_node=1",
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
)


def start(device: str) -> None:
    """Become rank 0 of 1."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    os.environ |= {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "cpu:gloo")


def compose(device: str, model: Path, *overrides: str) -> DictConfig:
    """Return the configuration that a training command composes on one device, resolved."""
    chosen = [*ONE_RANK, f"actor_rollout_ref.model.path={model}", *overrides]
    config = compose_config("relift", None, chosen, device)
    OmegaConf.resolve(config)
    return config


class Rank:
    """verl's engine of one rank, as a worker builds it, with its updates."""

    def __init__(self, config: DictConfig, dtype: str):
        """
        Args:
            config: from `compose`.
            dtype: `float32` or `bfloat16`, of weights and activations.
        """
        self.actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        self.model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
        # Past verl's check, which refuses fp32 on CUDA because it is slow: here it is the exact reference.
        object.__setattr__(self.actor.engine, "dtype", dtype)
        object.__setattr__(self.actor.optim, "total_training_steps", 1000)  # as the trainer does
        self.actor.engine.use_remove_padding = self.model.use_remove_padding
        self.engine = EngineRegistry.new(
            model_type="language_model",
            backend="megatron",
            model_config=self.model,
            engine_config=self.actor.engine,
            optimizer_config=self.actor.optim,
            checkpoint_config=self.actor.checkpoint,
        )
        self.engine.initialize()

    def policy_update(self, batch: Any) -> float:
        """Make one RL update; returns its loss."""
        with self.engine.train_mode():
            return _loss(self.engine.train_batch(batch, partial(ppo_loss, config=self.actor)))

    def supervised_update(self, batch: Any) -> float:
        """Make one supervised update on the whole sequences; returns its loss."""
        with self.engine.train_mode():
            return _loss(self.engine.train_batch(batch, partial(_engine_loss, entropy_coeff=1e-3)))

    def batch(self, sequences: int, length: int) -> Any:
        """Draw sequences of random tokens, half of each a response, in verl's unpadded form."""
        jagged, half = partial(torch.nested.as_nested_tensor, layout=torch.jagged), length // 2
        ids = [torch.randint(2, self.model.hf_config.vocab_size, (length,)) for _ in range(sequences)]
        mask = jagged([torch.ones(half, dtype=torch.int64) for _ in ids])
        return tu.get_tensordict(
            {
                "input_ids": jagged(ids),
                "position_ids": jagged([torch.arange(length) for _ in ids]),
                "prompts": jagged([row[:half] for row in ids]),
                "responses": jagged([row[half:] for row in ids]),
                "response_mask": mask,
                "loss_mask": mask,
                "old_log_probs": jagged([-6 + torch.randn(half) for _ in ids]),
                "advantages": jagged([torch.randn(1).expand(half).clone() for _ in ids]),
                "temperature": torch.ones(sequences),
            },
            {
                "use_dynamic_bsz": True,
                "max_token_len_per_gpu": self.actor.ppo_max_token_len_per_gpu,
                "calculate_entropy": True,
                "global_batch_size": sequences,
                "use_remove_padding": True,
            },
        )

    def demonstrations(self, sequences: int, length: int) -> Any:
        """Draw demonstrations: as `batch`, with the loss on the second half of each whole sequence."""
        data, half = self.batch(sequences, length), length // 2
        mask = torch.cat([torch.zeros(half, dtype=torch.int64), torch.ones(length - half, dtype=torch.int64)])
        keep = {name: data[name] for name in ("input_ids", "position_ids", "temperature")}
        keep["loss_mask"] = torch.nested.as_nested_tensor([mask.clone() for _ in range(sequences)], layout=torch.jagged)
        return tu.get_tensordict(
            keep,
            {
                "use_dynamic_bsz": True,
                "max_token_len_per_gpu": self.actor.ppo_max_token_len_per_gpu,
                "calculate_entropy": True,
                "global_batch_size": sequences,
                "use_remove_padding": True,
            },
        )


def release() -> None:
    """Free what a dropped engine held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _loss(output: dict) -> float:
    return float(sum(output["loss"]))
