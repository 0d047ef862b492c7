"""From the rewards of a group of rollouts to whether its question is hardest (arXiv 2506.07527, section 3)."""

from collections import defaultdict
from collections.abc import Iterable


def group_accuracy(uids: Iterable[str], rewards: Iterable[float]) -> dict[str, float]:
    """acc(q): the mean reward of each question's rollouts.

    Args:
        uids: the question of each rollout.
        rewards: 0 or 1 for each rollout, in the same order.

    Returns:
        question -> accuracy in [0, 1], in order of first appearance.
    """
    total: dict[str, float] = defaultdict(float)
    rollouts: dict[str, int] = defaultdict(int)
    for uid, reward in zip(uids, rewards, strict=True):
        total[uid] += reward
        rollouts[uid] += 1
    return {uid: total[uid] / count for uid, count in rollouts.items()}


def is_hardest(accuracy: float, max_accuracy: float) -> bool:
    """A question is hardest when at most ``max_accuracy`` of its rollouts are right; the paper's value is 0."""
    return accuracy <= max_accuracy
