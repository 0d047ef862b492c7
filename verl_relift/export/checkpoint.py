"""Finds the parts of a checkpoint that verl's Megatron checkpoint manager wrote, and checks that it is complete."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..run.console import LOG
from ..run.folder import METRICS
from .errors import ExportError

_STEP = re.compile(r"global_step_(\d+)")
# verl writes this file last, so its absence means that the save did not finish.
_MANIFEST = "ckpt_contents.json"
_LATEST = "latest_checkpointed_iteration.txt"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: the folder `global_step_N`.
        run: folder of the run.
        step: the training step N.
        weights: folder with the weights in Hugging Face format.
    """

    path: Path
    run: Path
    step: int
    weights: Path


def find_checkpoint(path: Path) -> Checkpoint:
    """Locate a checkpoint.

    Args:
        path: `RUN/global_step_N`, or `RUN` for its latest checkpoint.

    Raises:
        ExportError: there is no checkpoint, its save did not finish, or it has no weights in Hugging Face format.
    """
    path = path.resolve()
    if (path / _LATEST).is_file():
        path = path / f"global_step_{(path / _LATEST).read_text().strip()}"
    match = _STEP.fullmatch(path.name)
    if not path.is_dir() or match is None:
        run = path if match is None else path.parent
        steps = sorted(int(found[1]) for one in run.glob("global_step_*") if (found := _STEP.fullmatch(one.name)))
        if steps:
            raise ExportError(f"{path}: not a checkpoint; {run} has those of the steps {', '.join(map(str, steps))}")
        if (run / METRICS).is_file():
            raise ExportError(f"{run}: this run has no checkpoint; trainer.save_freq=N saves every N steps")
        if (run / LOG).is_file():
            raise ExportError(f"{run}: this run has made no step; {run / LOG} says why")
        raise ExportError(f"{path}: not a checkpoint; give RUN/global_step_N, or RUN")
    actor = path / "actor"
    if not (actor / _MANIFEST).is_file():
        raise ExportError(
            f"{path}: incomplete: no actor/{_MANIFEST}, which verl writes last; use an earlier checkpoint"
        )
    contents = json.loads((actor / _MANIFEST).read_text()).get("contents", {})
    entry = _hugging_face_entry(contents)
    if entry is None:
        held = ", ".join(sorted(contents)) or "nothing"
        raise ExportError(
            f"{path}: no weights in Hugging Face format (it holds {held}); add hf_model to "
            "actor_rollout_ref.actor.checkpoint.save_contents and train on"
        )
    weights = actor / entry["path"]
    if not (weights / "config.json").is_file():
        raise ExportError(f"{path}: incomplete: no {weights.relative_to(path)}/config.json; use an earlier checkpoint")
    return Checkpoint(path, path.parent, int(match[1]), weights)


def _hugging_face_entry(contents: dict[str, Any]) -> dict[str, Any] | None:
    entries = (contents.get(name) for name in ("model", "hf_model"))
    return next((entry for entry in entries if entry and entry.get("format") == "huggingface"), None)
