"""A step of training on phantom tensors, with the worker that training uses."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import verl  # noqa: F401  loads the platform plugin
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.megatron_utils import unwrap_model

from ..checks import chosen_method
from .batch import demonstrations, policy_batch, rollouts
from .engine import TracedEngine, TracedWorker, fake_group, gradients_of, optimizer_of, second_optimizer_of, weights_of
from .export import trace_sync
from .memory import Memory
from .phantom import Phantoms
from .save import trace_save
from .work import Work

RL_UPDATE, SUPERVISED_UPDATE, LOG_PROBS = "RL update", "supervised update", "log-probs"


def trace_step(config: DictConfig, work: Work) -> dict[str, Any]:
    """Build the worker, let it make the passes of a step, save a checkpoint and export its weights.

    Args:
        config: the resolved configuration.
        work: this rank and its micro-batches.

    Returns:
        JSON types: bytes by phase, place and part, and the largest allocations.
    """
    TracedEngine.transformer_engine = work.transformer_engine
    phantoms, started = Phantoms(cuda=config.trainer.device == "cuda"), time.perf_counter()
    with fake_group(work.rank, work.world_size), phantoms.active() as memory:
        step = _Step(config, work, memory, phantoms)
        step.run()
        sync = trace_sync(step.worker, config, memory) if work.pipeline_size == 1 else None
        trace_save(step.worker, memory)
    return {
        "phases": {name: {place: _described(peak) for place, peak in of.items()} for name, of in memory.peaks.items()},
        "sync": asdict(sync) if sync else None,
        "seconds": time.perf_counter() - started,
        "process": psutil.Process().memory_info().rss,
    }


def _described(peak) -> dict[str, Any]:
    largest = sorted(peak.live.items(), key=lambda item: -item[1])[:40]
    return {
        "total": peak.total,
        "parts": peak.by_part(),
        "allocations": [{"part": a.part, "site": a.site, "bytes": size} for a, size in largest if size > 0],
    }


@dataclass
class _Step:
    """The passes of a step on one rank.

    Attributes:
        config: the resolved configuration.
        work: this rank and its micro-batches.
        memory: counts the phantoms.
        phantoms: makes them.
    """

    config: DictConfig
    work: Work
    memory: Memory
    phantoms: Phantoms

    def __post_init__(self) -> None:
        self.method, self.settings = chosen_method(self.config)
        with self.memory.phase("build"):
            self.worker = self._build()
        self.engine = self.worker.actor.engine
        self._name_resident()
        self._follow_logits()

    def run(self) -> None:
        """Make every pass twice: the first time with one micro-batch, which makes the optimizer's state."""
        work = self.work
        passes: list[tuple[str, Callable[[int], None]]] = []
        if work.update:
            passes.append((RL_UPDATE, self._policy_update))
        if work.supervised and work.own_step:
            passes.append((SUPERVISED_UPDATE, self._supervised_update))
        for _, update in passes:
            with self.memory.of("activations"):
                update(1)
            self._name_resident()
        if work.log_probs:
            passes.insert(0, (LOG_PROBS, self._log_probs))
        for name, update in passes:
            with self.memory.phase(name), self.memory.of("activations"):
                update(work.micro_batches)

    def _build(self) -> TracedWorker:
        # As verl's trainer sets it.
        self.config.actor_rollout_ref.actor.optim.total_training_steps = self.config.trainer.total_training_steps
        worker = TracedWorker(config=self.config.actor_rollout_ref, role="actor")
        worker.init_model()
        if self.method.weighs_tokens(self.settings):
            worker.set_method(OmegaConf.to_container(self.config.method, resolve=True))
        return worker

    def _name_resident(self) -> None:
        """Tell parts apart that stay."""
        for part, tensors in (
            ("optimizer", optimizer_of(self.engine)),
            ("second optimizer", second_optimizer_of(self.worker)),
            ("weights", weights_of(self.engine)),
            ("gradients", gradients_of(self.engine)),
        ):
            for tensor in tensors:
                self.memory.rename(tensor, part)

    def _follow_logits(self) -> None:
        """Count as logits what is allocated after the final norm, until the gradient of its output is there."""

        def become(part: str) -> Callable[..., None]:
            def hook(*_) -> None:
                self.memory.part = part

            return hook

        def behind_final_norm(_, arguments: tuple, hidden) -> None:
            self.memory.part = "logits"
            if hidden.requires_grad:
                hidden.register_hook(become("activations"))

        for model in unwrap_model(self.engine.module):
            model.register_forward_pre_hook(become("activations"))
            if model.post_process:
                model.decoder.final_layernorm.register_forward_hook(behind_final_norm)

    def _expect(self, lengths: Sequence[int]) -> None:
        """Let other pipeline stages send the hidden states of micro-batches with these sequences."""
        config = self.engine.tf_config
        sharing = config.context_parallel_size * (config.tensor_model_parallel_size if config.sequence_parallel else 1)
        self.phantoms.receive([sum(lengths) // sharing, 1, config.hidden_size])

    def _rollouts(self, lengths: Sequence[int], micro_batches: int) -> TensorDict:
        self._expect(lengths)
        return rollouts(lengths, micro_batches, self.worker.actor.model_config.hf_config.vocab_size)

    def _policy_update(self, micro_batches: int) -> None:
        work, ranks = self.work, self.work.data_parallel_size
        data = self._rollouts(work.update, micro_batches)
        data = policy_batch(data, self.config, ranks, old=bool(work.log_probs))
        if work.supervised and not work.own_step:
            budget = self.config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu
            self.worker.splice_sft(
                demonstrations(work.supervised, micro_batches, budget, ranks, sft_entropy_coeff=1e-4, sft_weight=1.0)
            )
        self.worker.update_actor(data)

    def _supervised_update(self, micro_batches: int) -> None:
        work = self.work
        self._expect(work.supervised)
        settings = {"sft_lr": 1e-6, "sft_clip_grad": 1.0, "sft_entropy_coeff": 1e-4, "sft_epochs": 1}
        self.worker.update_actor_sft(
            demonstrations(
                work.supervised,
                micro_batches,
                sum(work.supervised) // self.engine.tf_config.context_parallel_size,
                work.data_parallel_size,
                sft_separate=work.separate_moments,
                **settings,
            )
        )

    def _log_probs(self, micro_batches: int) -> None:
        data = self._rollouts(self.work.log_probs, micro_batches)
        tu.assign_non_tensor(data, calculate_entropy=True, compute_loss=False)
        self.worker.compute_log_prob(data)
