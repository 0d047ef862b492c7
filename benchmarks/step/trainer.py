"""A trainer whose steps take turns in kind, with a bare vLLM that answers the same prompts."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from benchmarks.step.kinds import KINDS, SFT, VERL
from verl_relift.trainer import MethodTrainer
from verl_relift.types import Prompt


class TakingTurns(MethodTrainer):
    """Makes every kind of step in turn. After verl's own step, a bare vLLM answers the same prompts."""

    def __init__(self, config: DictConfig):
        super().__init__(config)
        self._bare = BareGenerator(config)
        self._asked: Sequence[Prompt] = ()  # prompts of the current step

    @property
    def kind(self) -> str:
        """The kind of the current step."""
        return KINDS[(self.global_steps - 1) % len(KINDS)]

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        if self.kind == VERL:
            return PPOTrainerSync.step(self, metrics, timing_raw)
        before = self.method.collector.tokens
        batch = super().step(metrics, timing_raw)
        metrics["bench/sft_tokens"] = self.method.collector.tokens - before
        return batch

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        self.method.batches_due = self._batches_due

    def _batches_due(self, step: int) -> list[int]:
        """Return one batch in steps with a supervised update and none in others, in place of the method's schedule."""
        self.method.collector.settle()
        if self.kind != SFT:
            return []
        waiting, size = len(self.method.collector.buffer), self.method.settings.sft.batch_size
        if waiting < size:
            raise RuntimeError(f"{waiting} demonstrations are waiting, but the supervised update needs {size}")
        return [size]

    def _ask(self, prompts: Sequence[Prompt]) -> None:
        self._asked = prompts
        super()._ask(prompts)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        owner = PPOTrainerSync if self.kind == VERL else MethodTrainer
        return owner._compute_old_log_prob(self, batch, metrics)

    def _compute_metrics(self, batch: Any, metrics: dict, timing_raw: dict, global_steps: int, epoch: int) -> None:
        metrics["bench/rollout_tokens"] = sum(tag["response_len"] for tag in batch.tags if not tag.get("is_padding"))
        if self.kind == VERL:
            worker = self.agent_loop_manager._local
            ids = [worker._encode(prompt) for prompt in self._asked]
            seeds = [worker._seed_of(*asked, global_steps) for asked in zip(self._asked, ids, strict=True)]
            answer = self._bare.generate(ids, seeds)
            metrics["bench/bare_s"], metrics["bench/bare_tokens"] = answer["seconds"], answer["tokens"]
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)

    def close(self) -> None:
        self._bare.close()
        super().close()


class BareGenerator:
    """Runs benchmarks/step/bare_vllm.py in its own process, which is stopped while it has nothing to do."""

    def __init__(self, config: DictConfig):
        rollout = config.actor_rollout_ref.rollout
        settings = {
            "model": config.actor_rollout_ref.model.path,
            "tensor_parallel_size": rollout.tensor_model_parallel_size,
            "dtype": rollout.dtype,
            "max_model_len": rollout.max_model_len,
            "max_num_seqs": rollout.max_num_seqs,
            "max_num_batched_tokens": rollout.max_num_batched_tokens,
            "enforce_eager": rollout.enforce_eager,
            "enable_chunked_prefill": rollout.enable_chunked_prefill,
            "enable_prefix_caching": rollout.enable_prefix_caching,
            **rollout.engine_kwargs.vllm,
        }
        self._sampling = {
            "n": rollout.n,
            "temperature": rollout.temperature,
            "top_p": rollout.top_p,
            "top_k": rollout.top_k,
            "max_tokens": rollout.response_length,
            "logprobs": 0 if rollout.calculate_log_probs else None,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.step.bare_vllm", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._read()  # wait until it is ready
        self._stop()

    def generate(self, prompts: list[list[int]], seeds: list[int]) -> dict[str, float]:
        """Answer prompts with `LLM.generate`.

        Args:
            prompts: token ids of each prompt.
            seeds: seed of each prompt.

        Returns:
            `seconds` that it took and `tokens` of all responses.

        Raises:
            RuntimeError: the process has exited.
        """
        os.killpg(self._process.pid, signal.SIGCONT)
        request = {"prompts": prompts, "seeds": seeds, "sampling": self._sampling}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        self._stop()
        return answer

    def close(self) -> None:
        """Kill the process."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the bare vLLM exited; its error is above")
        return json.loads(line)

    def _stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)
