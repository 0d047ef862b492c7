"""Runs GRPO with TRL's `GRPOTrainer` in steps that wait for their turn; `benchmarks.loop` starts it.

The algorithm is that of `method=grpo`: one optimizer step on all rollouts of a step, advantages without the standard
deviation, one token mean, clipping at 0.2, no KL term, AdamW at a constant learning rate, gradients clipped at 1. TRL
holds its weights in fp32, runs without gradient checkpointing and generates with transformers.
"""

import argparse
import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch.distributed as dist
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.loop.turns import Player, Work
from verl_relift.rewards import grade_many


class Ledger:
    """Grades responses as TRL's reward function and counts what it sees."""

    __name__ = "correct"  # TRL names its metrics after a reward function's name

    def __init__(self) -> None:
        self.work = Work()

    def __call__(
        self, completions: list[list[dict]], completion_ids: list[list[int]], ground_truth: list[str], **_: object
    ) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        rewards = [float(grade.correct) for grade in grade_many(list(zip(texts, ground_truth, strict=True)))]
        self.work.add(Work([len(ids) for ids in completion_ids], 0, sum(rewards)))
        return rewards

    def take(self) -> Work:
        """Return the work of all processes since the last call."""
        mine, self.work = self.work, Work()
        if not dist.is_initialized():
            return mine
        all_works: list[Work | None] = [None] * dist.get_world_size()
        dist.all_gather_object(all_works, mine)
        total = Work()
        for work in all_works:
            total.add(work)
        return total


class TakesTurns(TrainerCallback):
    """Waits at the start of every step; the first process talks to the referee for all of them."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._tokens_seen = 0
        first = not dist.is_initialized() or dist.get_rank() == 0
        self._player = Player.of_environment() if first else None

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        work = self._ledger.take()
        # TRL's counter includes prompt and response tokens of all processes.
        work.prompt_tokens = int(state.num_input_tokens_seen) - self._tokens_seen - work.response_tokens
        self._tokens_seen = int(state.num_input_tokens_seen)
        continues = [True]
        if self._player is not None:
            self._player.trained(work)
            continues = [self._player.begin_step()]
        if dist.is_initialized():
            dist.broadcast_object_list(continues, src=0)
        if not continues[0]:
            sys.exit(0)


def read_questions(path: Path) -> Dataset:
    """Return `prompt`, a chat, and `ground_truth` of every row of a parquet file."""
    rows = pq.read_table(path, columns=["prompt", "reward_model"]).to_pylist()
    return Dataset.from_list(
        [{"prompt": row["prompt"], "ground_truth": row["reward_model"]["ground_truth"]} for row in rows]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="parquet file")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--questions", type=int, required=True, help="questions per step")
    parser.add_argument("--rollouts", type=int, required=True, help="rollouts per question")
    parser.add_argument("--max-tokens", type=int, required=True, help="length limit of a response")
    parser.add_argument("--micro-batch", type=int, required=True, help="rollouts per forward and backward pass")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--betas", type=float, nargs=2, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--bf16", action="store_true", help="matrix products in bf16, by autocast")
    options = parser.parse_args()

    processes = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
    passes, rest = divmod(options.questions * options.rollouts, options.micro_batch * processes)
    if rest:
        parser.error("--questions x --rollouts must be divisible by --micro-batch x the number of processes")
    ledger = Ledger()
    trainer = GRPOTrainer(
        model=str(options.model),
        reward_funcs=ledger,
        train_dataset=read_questions(options.data),
        args=GRPOConfig(
            output_dir=str(options.output),
            use_cpu=True,
            bf16=options.bf16,
            gradient_checkpointing=False,
            per_device_train_batch_size=options.micro_batch,
            gradient_accumulation_steps=passes,
            num_generations=options.rollouts,
            max_completion_length=options.max_tokens,
            temperature=1.0,
            max_steps=options.steps,
            shuffle_dataset=False,
            loss_type="dapo",
            scale_rewards="none",
            beta=0.0,
            num_iterations=1,
            epsilon=0.2,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            adam_beta1=options.betas[0],
            adam_beta2=options.betas[1],
            weight_decay=0.0,
            max_grad_norm=1.0,
            model_init_kwargs={"dtype": "float32"},
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.add_callback(TakesTurns(ledger))
    trainer.train()


if __name__ == "__main__":
    main()
