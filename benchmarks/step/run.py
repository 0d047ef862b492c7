"""verl_relift.train whose steps take turns in kind; started by benchmarks/step/__main__.py."""

import json
import os
import signal
import subprocess
import sys

from verl_relift.run.environment import prepare_environment

prepare_environment()

from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync  # noqa: E402  reads the environment

from benchmarks.step.kinds import KINDS, SFT, VERL  # noqa: E402
from verl_relift import train, trainer  # noqa: E402
from verl_relift.rollout.prompts import prompt_token_ids  # noqa: E402
from verl_relift.trainer import ReLIFTTrainer  # noqa: E402


class TakingTurns(ReLIFTTrainer):
    """Every kind of step in turn; after verl's own, a bare vLLM answers the same prompts."""

    def __init__(self, config):
        super().__init__(config)
        self._bare = BareGenerator(config)
        self._prompts: list[list[int]] = []

    @property
    def kind(self) -> str:
        return KINDS[(self.global_steps - 1) % len(KINDS)]

    def _next_train_batch(self, *args, **kwargs):
        batch = super()._next_train_batch(*args, **kwargs)
        length = self.config.actor_rollout_ref.rollout.prompt_length
        self._prompts = [prompt_token_ids(self.tokenizer, raw, {}, length) for raw in batch["raw_prompt"]]
        return batch

    def _balance_batch(self, *args, **kwargs):
        owner = PPOTrainerSync if self.kind == VERL else ReLIFTTrainer
        return owner._balance_batch(self, *args, **kwargs)

    def _compute_old_log_prob(self, *args, **kwargs):
        owner = PPOTrainerSync if self.kind == VERL else ReLIFTTrainer
        return owner._compute_old_log_prob(self, *args, **kwargs)

    def _update_actor(self, batch, metrics):
        if self.kind == VERL:
            return PPOTrainerSync._update_actor(self, batch, metrics)
        before = self.sft_tokens
        batch = super()._update_actor(batch, metrics)
        metrics["bench/sft_tokens"] = self.sft_tokens - before
        return batch

    def _updates_due(self) -> list[int]:
        if self.kind != SFT:
            return []
        size = self.settings.sft.batch_size
        if len(self.buffer) < size:
            raise RuntimeError(f"{len(self.buffer)} demonstrations wait, {size} are needed")
        return [size]

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        metrics["bench/rollout_tokens"] = sum(tag["response_len"] for tag in batch.tags if not tag.get("is_padding"))
        if self.kind == VERL:
            seeds = self.agent_loop_manager._local._seeds(self._prompts, global_steps)
            answer = self._bare.generate(self._prompts, seeds)
            metrics["bench/bare_s"], metrics["bench/bare_tokens"] = answer["seconds"], answer["tokens"]
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)

    def close(self) -> None:
        self._bare.close()
        super().close()


class BareGenerator:
    """benchmarks/step/bare_vllm.py in a process of its own, which stands still when it is not asked."""

    def __init__(self, config):
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
        self._read()  # it is ready
        self._stop()

    def generate(self, prompts: list[list[int]], seeds: list[int]) -> dict:
        """Seconds and tokens that `LLM.generate` takes and makes."""
        os.killpg(self._process.pid, signal.SIGCONT)
        request = {"prompts": prompts, "seeds": seeds, "sampling": self._sampling}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        self._stop()
        return answer

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the bare vLLM ended; its error is above")
        return json.loads(line)

    def _stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


if __name__ == "__main__":
    trainer.ReLIFTTrainer = TakingTurns
    train.main()
