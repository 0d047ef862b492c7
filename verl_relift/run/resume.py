"""What a training command resumes from, which can be said before anything is started."""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from . import checkpoints, experiment, trust


@dataclass(frozen=True)
class Resume:
    """Where a run resumes from."""

    checkpoint: Path | None = None  # None: it starts from step 0
    step: int = 0  # of the checkpoint
    total: int | None = None  # steps of the whole run, if that is known
    changed: list[experiment.Change] = field(default_factory=list)  # settings that have other values now

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return self.checkpoint is not None and self.total is not None and self.step >= self.total

    def lines(self) -> list[str]:
        """Say it to the user."""
        if self.checkpoint is None:
            return []
        run = self.checkpoint.parent
        if self.is_done:
            more = "" if self.step == self.total else f" (step {self.step} was the last)"
            return [f"{self.total} of {self.total} steps are done in {run}{more}; there is nothing left to train"]
        first = f"resuming from step {self.step} of {self.total or 'as many as trainer.total_epochs has'} in {run}"
        return [first, *(f"changed since: {change}" for change in self.changed)]


def find(config: DictConfig) -> Resume:
    """Find the checkpoint that a run starts from, and check that it may.

    Args:
        config: composed, with its interpolations.

    Raises:
        CheckpointError: it does not exist, is another method's, another experiment's, or may be somebody else's.
    """
    trainer = config.trainer
    match trainer.resume_mode:
        case "auto":
            checkpoint = checkpoints.latest(Path(trainer.default_local_dir))
        case "resume_path":
            if not trainer.resume_from_path:
                raise checkpoints.CheckpointError(
                    "trainer.resume_mode=resume_path: trainer.resume_from_path is not set; give an existing folder "
                    ".../global_step_N, or leave trainer.resume_mode out"
                )
            checkpoint = Path(trainer.resume_from_path)
        case _:
            checkpoint = None
    if checkpoint is None:
        return Resume()
    step = checkpoints.step_of(checkpoint)
    settings = config.relift.resume
    if not settings.trust_others:
        try:
            trust.require_own(checkpoint)
        except trust.Untrusted as problem:
            raise checkpoints.CheckpointError(str(problem)) from problem
    checkpoints.require_method(checkpoint, config.method.name)
    record = experiment.Record.read(checkpoint)
    if record is None:
        return Resume(checkpoint, step, experiment.total_steps(config, None))
    changed = experiment.changes(record, config)
    refused = experiment.refused(record, changed, list(settings.accept_changes))
    if refused:
        raise checkpoints.CheckpointError(experiment.refusal(checkpoint, refused))
    same_data = all(experiment.reason_to_change(change.key) for change in changed)
    return Resume(checkpoint, step, experiment.total_steps(config, record if same_data else None), changed)
