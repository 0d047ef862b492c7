"""Supervised fine-tuning alone, on the stack of ReLIFT: the same loss, worker, checkpoints, metrics and evaluation."""

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.utils.debug import marked_timer

from .rollout.prompts import prompt_token_ids
from .settings import SFTMode
from .trainer import ReLIFTTrainer, question_key


class SupervisedTrainer(ReLIFTTrainer):
    """A step draws ``data.train_batch_size`` rows, puts their demonstrations into the buffer and makes the updates
    that are due. Nothing is sampled but for validation, for which vLLM gets the weights.
    """

    def on_init_end(self) -> None:
        """vLLM stays asleep: it has nothing to answer yet."""

    def on_validate_begin(self) -> None:
        super().on_validate_begin()
        self.checkpoint_manager.update_weights(self.global_steps)

    def on_validate_end(self) -> None:
        self.checkpoint_manager.sleep_replicas()
        super().on_validate_end()

    def send_weights(self) -> None:
        """Not after each step, see :meth:`on_validate_begin`."""

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """One step; what it returns stands for the rollouts that were not made."""
        assert self.settings.sft.mode is SFTMode.INTERLEAVE  # checked: there is no RL update to join
        with marked_timer("collect", timing_raw):
            self._next_train_batch()
            for row in self._questions.values():
                prompt_ids = tuple(
                    prompt_token_ids(
                        self.tokenizer,
                        row["messages"],
                        dict(self.config.data.get("apply_chat_template_kwargs", {})),
                        self.config.data.max_prompt_length,
                    )
                )
                key = question_key(prompt_ids)
                if key not in self.buffer:
                    self._obtain(key, prompt_ids, row)
        with marked_timer("update_actor_sft", timing_raw):
            self._interleave(metrics)
        self._count(metrics)
        # verl removes a step's rollouts from TransferQueue, which refuses to remove nothing.
        mark = {"keys": [f"{self.global_steps}-supervised"], "tags": [{"global_steps": self.global_steps}]}
        tq.kv_batch_put(partition_id="train", **mark)
        return KVBatchMeta(partition_id="train", **mark)

    def _data_parallel_size(self) -> int:
        group = self.actor_rollout_wg
        if "actor" not in group._dispatch_info:
            group._dispatch_info["actor"] = group._query_dispatch_info("actor")
        return super()._data_parallel_size()

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch) -> None:
        metrics.update({f"timing_s/{name}": value for name, value in timing_raw.items()})
        metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
        self._add_startup(metrics)
