"""Groups that verl's filter keeps out of the RL update are shown before they go: every rollout failed some of them."""

import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.v1 import replay_buffer

from verl_relift.rollout.groups import draw_of
from verl_relift.rollout.sampler import GroupSampler

PARTITION = "train"


class Queue:
    """TransferQueue's key-value interface, in this process."""

    def __init__(self):
        self.tags, self.rewards = {}, {}

    def kv_list(self):
        return {PARTITION: {key: dict(tag) for key, tag in self.tags.items()}}

    def kv_batch_get(self, keys, partition_id, select_fields):
        assert select_fields == ["rm_scores"]
        return {"rm_scores": [torch.tensor([self.rewards[key]]) for key in keys]}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.tags.pop(key, None)

    def finish(self, draw, rewards):
        """Store a graded group."""
        for session, reward in enumerate(rewards):
            key = f"{draw}_{session}_0"
            self.tags[key], self.rewards[key] = {"status": "success", "response_len": 3}, reward
        self.tags[draw] = {"is_prompt": True, "status": "finished", "global_steps": 1}


@pytest.fixture
def queue(monkeypatch):
    queue = Queue()
    monkeypatch.setattr(replay_buffer, "tq", queue)
    return queue


def sampler(refill) -> GroupSampler:
    groups = {"enable": True, "metric": "reward", "max_inflight_gen_batches": 2}
    kwargs = {"filter_groups": groups, "train_batch_size": 2, "gen_batch_size": 1, "sync_refill_failed_groups": False}
    return GroupSampler(
        trainer_mode="sync",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs=OmegaConf.create(kwargs),
        refill_fn=refill,
    )


def test_every_group_of_a_step_is_sampled_or_shown(queue):
    """All failed, all right, and what a refill has made too much of."""
    refills = iter([("1-2", (1.0, 0.0)), ("1-3", (0.0, 0.0)), ("1-4", (0.0, 1.0)), ("1-5", (1.0, 0.0))])
    asked = []

    def refill(count):
        for draw, rewards in [next(refills) for _ in range(count)]:
            asked.append(draw)
            queue.finish(draw, rewards)

    shown = []
    buffer = sampler(refill)
    buffer.before_clearing = lambda rows: shown.append((rows.keys, [queue.rewards[key] for key in rows.keys]))
    queue.finish("1-0", (0.0, 0.0))
    queue.finish("1-1", (1.0, 1.0))
    batch, metrics = buffer.sample(global_steps=1, partition_id=PARTITION, batch_size=2)
    sampled = {draw_of(key) for key in batch.keys}
    cleared = [draw_of(key) for keys, _ in shown for key in keys]
    assert sampled == {"1-2", "1-4"} and set(cleared) == {"1-0", "1-1", "1-3", "1-5"}
    assert all(cleared.count(draw) == 2 for draw in cleared), "each rollout once"
    failed = [key for keys, rewards in shown for key, reward in zip(keys, rewards, strict=True) if reward == 0.0]
    assert {draw_of(key) for key in failed} >= {"1-0", "1-3"}
    assert metrics["training/filter_groups/evicted_samples"] == 3 and asked == ["1-2", "1-3", "1-4", "1-5"]


def test_without_a_listener_nothing_else_happens(queue):
    queue.finish("1-0", (0.0, 0.0))
    queue.finish("1-1", (1.0, 0.0))
    queue.finish("1-2", (1.0, 0.0))
    batch, _ = sampler(lambda count: None).sample(global_steps=1, partition_id=PARTITION, batch_size=2)
    assert {draw_of(key) for key in batch.keys} == {"1-1", "1-2"}
