"""verl's replay buffer, woken by the rollout manager instead of polling; what it evicts is shown before it goes."""

from collections.abc import Callable

from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from .groups import draw_of

# Between two looks at TransferQueue where nothing wakes it, seconds. verl's two seconds would be most of a step of a
# small model.
POLL_INTERVAL = 0.05

# For a batch of rollouts to be stored, seconds.
WAIT_AT_MOST = 1.0


class GroupSampler(ReplayBuffer):
    """verl's synchronous sampler, DAPO's group filter included; `trainer.v1.sampler.custom_sampler` names it.

    verl hands what its own sampler needs to no other, so it comes with `sampler_kwargs`.
    """

    def __init__(self, *args, sampler_kwargs: DictConfig, **kwargs):
        """
        Args:
            sampler_kwargs: `filter_groups` (verl's group `algorithm.filter_groups`), `train_batch_size`,
                `gen_batch_size` and `sync_refill_failed_groups`.
        """
        groups, refill = sampler_kwargs.filter_groups, bool(sampler_kwargs.sync_refill_failed_groups)
        filters = groups is not None and bool(groups.enable)
        batch = sampler_kwargs.train_batch_size
        super().__init__(
            *args,
            sampler_kwargs=sampler_kwargs,
            poll_interval=POLL_INTERVAL,
            filter_groups_metric=str(groups.metric) if filters else None,
            train_batch_size=batch,
            gen_batch_size=1 if filters or refill else sampler_kwargs.gen_batch_size or batch,
            max_inflight_gen_batches=groups.get("max_inflight_gen_batches", 1) if filters else 1,
            sync_refill_failed_groups=refill,
            **kwargs,
        )
        self.wait_for_batch: Callable[[float], bool] | None = None  # the trainer sets it where there is one
        # The trainer sets it where the method reads groups: it gets the rows of finished groups that are not sampled.
        self.before_clearing: Callable[[KVBatchMeta], None] | None = None

    def _clear_groups(self, partition_id: str, uids: set[str]) -> None:
        if self.before_clearing is not None and partition_id == "train":
            finished = uids & self.finished_keys[partition_id]
            rows = [row for row in self.partitions[partition_id].items() if draw_of(row[0]) in finished]
            if rows:
                keys, tags = zip(*rows, strict=True)
                self.before_clearing(KVBatchMeta(partition_id=partition_id, keys=list(keys), tags=list(tags)))
        super()._clear_groups(partition_id, uids)

    def _select_prompt_uids(self, partition_id: str, sampleable_keys: set[str], batch_size: int):
        # verl sorts a set by the step; questions of one step would come in any order.
        return super()._select_prompt_uids(partition_id, sorted(sampleable_keys), batch_size)

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        # Every look asks TransferQueue about all rows; a batch that is stored needs no more than one.
        waited = self.wait_for_batch is not None and self.wait_for_batch(WAIT_AT_MOST)
        self.poll_interval = 0.0 if waited else POLL_INTERVAL
        return super()._wait_for_next_poll(partition_id, last_debug_time)
