"""`method` and `relift`: their dataclasses say what is legal; here is in which runs a key acts."""

from .rules import Condition, Rule, Unchecked, under, when

_SOURCE = "method.demonstrations.source"  # methods that have none take solutions from the data set
_BATCHED = when("relift.rollout.batched", True)
_TEACHER = when(_SOURCE, "teacher", "dataset_then_teacher")
_PRIVILEGED = Condition(f"{_SOURCE}=privileged", lambda value: value(_SOURCE) in ("privileged", None))
_DATASET = Condition(f"{_SOURCE} other than teacher", lambda value: value(_SOURCE) != "teacher")
_DECAYS = when("method.sft.lr_schedule", "linear", "cosine")
_IN_QUESTION = when("method.kind", "hint", "column")

_WHEN: dict[str, Condition] = {
    "method.teacher": _TEACHER,
    "method.privileged": _PRIVILEGED,
    "method.demonstrations.column": _DATASET,
    "method.schedule.every": when("method.schedule.kind", "every_k"),
    "method.schedule.max_updates_per_step": when("method.schedule.kind", "adaptive"),
    "method.sft.lr_decay_updates": _DECAYS,
    "method.sft.min_lr_ratio": _DECAYS,
    "method.levels": when("method.kind", "prefix", "hint"),
    "method.column": when("method.kind", "column"),
    "method.max_levels": when("method.kind", "column"),
    "method.template": _IN_QUESTION,
    "method.loss": _IN_QUESTION,
    "relift.rollout.workers": _BATCHED,
    "relift.rollout.seeded": _BATCHED,
    "relift.reuse_log_probs": _BATCHED,
    "relift.threads": when("trainer.device", "cpu"),
}

KEYS: dict[str, Rule] = under("", dict.fromkeys(("method", "relift"), Unchecked(complete=True))) | {
    key: Unchecked(complete=True, when=condition) for key, condition in _WHEN.items()
}
