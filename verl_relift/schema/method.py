"""`method` and `relift`: their dataclasses say what is legal; here is in which runs a key acts."""

from .rules import Condition, Rule, Unchecked, under, when

_BATCHED = when("relift.rollout.batched", True)
_TEACHER = when("method.demonstrations.source", "teacher", "dataset_then_teacher")
_DATASET = when("method.demonstrations.source", "dataset", "dataset_then_teacher")
_DECAYS = when("method.sft.lr_schedule", "linear", "cosine")

_WHEN: dict[str, Condition] = {
    "method.teacher": _TEACHER,
    "method.demonstrations.column": _DATASET,
    "method.schedule.every": when("method.schedule.kind", "every_k"),
    "method.schedule.max_updates_per_step": when("method.schedule.kind", "adaptive"),
    "method.sft.lr_decay_updates": _DECAYS,
    "method.sft.min_lr_ratio": _DECAYS,
    "relift.rollout.workers": _BATCHED,
    "relift.rollout.seeded": _BATCHED,
    "relift.reuse_log_probs": _BATCHED,
}

KEYS: dict[str, Rule] = under("", dict.fromkeys(("method", "relift"), Unchecked(complete=True))) | {
    key: Unchecked(complete=True, when=condition) for key, condition in _WHEN.items()
}
