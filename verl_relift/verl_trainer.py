"""verl's synchronous trainer as a run of this program needs it, whatever the method.

A step is a function of the checkpoint before it: questions have names made of step and place, rollouts are put into
the order of their names whatever the order in which they finished, and every draw is seeded by the step. A checkpoint
is there whole or not at all, and is in use once its step's metrics are written.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from omegaconf import DictConfig
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role as WorkerRole
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer

from .actor.worker import DemonstrationWorker
from .run import checkpoints, garbage, lock, stopping
from .run import folder as runfolder
from .run.experiment import Record
from .run.failure import Actors
from .run.progress import stage

_ACTOR_ROLES = {WorkerRole.Actor, WorkerRole.ActorRollout, WorkerRole.ActorRolloutRef}


class ResumableTrainer(PPOTrainerSync):
    """verl's synchronous trainer with exact resume, stopping between two steps, and a file of metrics."""

    def __init__(self, config: DictConfig):
        self._record = Record.of(config)  # before anything changes in it
        super().__init__(config)
        self.global_steps = 0  # verl's; what fails before it is set fails in step 0
        self.timing_raw: dict[str, float] = {}  # verl's, from the first step on: timers of what the step has done
        self._beside_steps = ""  # what it does now, if that is no stage of a step
        self.stopped_after: int | None = None  # the step, if stopping was requested with steps left
        self._saved_step: int | None = None  # of the last checkpoint
        self._committed_step: int | None = None  # of the last one that the tracker names
        self._startup: float | None = None  # seconds, until it has been logged
        self._metrics_file: runfolder.MetricsFile | None = None
        self._step: tuple[KVBatchMeta, dict] | None = None  # rows and metrics of the last one
        self.on_record: Callable[[dict[str, Any]], None] = lambda record: None  # gets each line of metrics.jsonl
        self._drawn_in = -1  # the step that `_drawn` counts
        self._drawn = 0  # questions drawn for it

    # ---- what a subclass says ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides verl's part, as plain JSON types."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        raise NotImplementedError

    def recorded_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the recorded metrics, those of its own step included, as JSON types."""
        return {}

    def load_recorded_state(self, state: dict[str, Any]) -> None:
        """Undo `recorded_state`."""

    def make_step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Make one training step; returns the rows that its metrics are computed from."""
        raise NotImplementedError

    def uses_separate_moments(self) -> bool:
        """Whether the worker has a second set of AdamW moments to load."""
        return False

    # ---- verl's hooks ------------------------------------------------------------------------------------------------

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in _ACTOR_ROLES & self.role_worker_mapping.keys():
            self.role_worker_mapping[role] = ray.remote(DemonstrationWorker)

    def _build_replay_buffer(self):
        self._resolve_filter_groups_metric()  # which verl asks for its own sampler only; it raises what is wrong
        return super()._build_replay_buffer()

    def fit(self, agent_loop_manager) -> None:
        """Train, with the sampler woken by the manager where the two know how."""
        trainer = self.config.trainer
        if self._continues() and not trainer.val_only:
            trainer.val_before_train = False  # this is not before training, and the step has its record
        if hasattr(self.replay_buffer, "wait_for_batch"):
            self.replay_buffer.wait_for_batch = getattr(agent_loop_manager, "wait_for_batch", None)
        super().fit(agent_loop_manager)

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        batch = super()._next_train_batch(num_prompts)
        if self._drawn_in != self.global_steps:
            self._drawn_in, self._drawn = self.global_steps, 0
        # Random names would make the order of a step's rollouts, and so its last bits, differ between runs.
        names = [f"{self.global_steps}-{place:06d}" for place in range(self._drawn, self._drawn + len(batch))]
        self._drawn += len(batch)
        batch["uid"] = NonTensorStack(*names)
        return batch

    def in_order(self, batch: KVBatchMeta) -> KVBatchMeta:
        """Put rollouts into the order of their names."""
        names = [(uid, int(session)) for uid, session, _ in (key.rsplit("_", 2) for key in batch.keys)]
        batch.reorder(sorted(range(len(names)), key=names.__getitem__))
        return batch

    def doing(self) -> str:
        """Return what the run is doing now, in words."""
        return self._beside_steps or stage(self.timing_raw)

    @contextmanager
    def _says(self, what: str) -> Iterator[None]:
        self._beside_steps = what
        try:
            yield
        finally:
            self._beside_steps = ""

    def _continues(self) -> bool:
        """Whether the run's own metrics reach the step that it starts from."""
        run = Path(self.config.trainer.default_local_dir)
        return self.global_steps > 0 and self.global_steps in runfolder.recorded_steps(run)

    def on_train_begin(self) -> None:
        super().on_train_begin()
        garbage.freeze()
        # From the command to the first question sent out.
        self._startup = time.time() - psutil.Process().create_time()
        if stopping.stop_requested() and self.global_steps <= self.total_training_steps:
            self._stop_after(self.global_steps - 1)  # nothing has changed since the checkpoint

    def on_step_end(self) -> None:
        if stopping.stop_requested() and self.global_steps < self.total_training_steps:
            if self._saved_step != self.global_steps:
                with marked_timer("save_checkpoint", self.timing_raw):
                    self._save_checkpoint()
            self._stop_after(self.global_steps)
        self.send_weights()

    def send_weights(self) -> None:
        """Send the weights of all updates of the step to vLLM."""
        super().on_step_end()

    def _stop_after(self, step: int) -> None:
        self.stopped_after = step
        self.total_training_steps = step  # what fit() compares before the next step

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Make one training step as `make_step` does, and remember what its record is computed from."""
        batch = self.make_step(metrics, timing_raw)
        self._step = batch, metrics
        return batch

    def _validate(self, *args: Any, **kwargs: Any) -> dict:
        """Validate; where that fails, the step before it and its checkpoint are kept."""
        try:
            with self._says("validating"):
                return super()._validate(*args, **kwargs)
        except Exception:
            if self._saved_step != self._committed_step:
                (batch, metrics), step = self._step, self.global_steps
                self._compute_metrics(batch, metrics, self.timing_raw, step, (step - 1) // self.steps_per_epoch)
                self.logger.log(data=metrics, step=step)
            raise

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        self.add_startup(metrics)

    def add_startup(self, metrics: dict) -> None:
        """Add the time from the command to the first question, once."""
        if self._startup is not None:
            metrics["timing_s/startup"], self._startup = self._startup, None

    # ---- records -----------------------------------------------------------------------------------------------------

    @property
    def logger(self):
        """verl's trackers, plus `metrics.jsonl` in the run's folder whatever they are."""
        return self._metrics_file

    @logger.setter
    def logger(self, tracking) -> None:
        if board := tracking.logger.get("tensorboard"):
            # Makes TensorBoard drop the steps that the run repeats. The next record reopens the writer with this step.
            board.writer.close()
            board.writer.purge_step = self.global_steps + 1 if self.global_steps else 0
        self._metrics_file = runfolder.MetricsFile.beside(
            tracking, self.config.trainer.default_local_dir, self.global_steps, self._recorded
        )

    def _recorded(self, record: dict[str, Any]) -> None:
        """Put the step's checkpoint into use, and pass its record on."""
        self._commit_checkpoint()
        self.on_record(record)

    def _save_checkpoint(self) -> None:
        """Write verl's layout plus `relift/` beside the last whole checkpoint, which stays in use until then."""
        with self._says("saving"):
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        lock.require()
        run = Path(self.config.trainer.default_local_dir)
        folder = checkpoints.begin(run, self.global_steps)
        hdfs = self.config.trainer.default_hdfs_dir
        remote = hdfs and f"{hdfs}/global_step_{self.global_steps}/actor"
        # Old ones are removed later: verl would remove them before this one is whole.
        self.actor_rollout_wg.save_checkpoint(str(folder / "actor"), remote, self.global_steps, max_ckpt_to_keep=None)
        self.actor_rollout_wg.save_extra(str(folder / "relift"))
        torch.save(self.train_dataloader.state_dict(), folder / "data.pt")
        state = {"method": self.config.method.name, **self.state_dict()}
        runfolder.write_atomically(folder / checkpoints.STATE_FILE, json.dumps(state))
        replace(self._record, steps_per_epoch=self.steps_per_epoch).write(folder)
        self._saved_step = self.global_steps

    def _commit_checkpoint(self) -> None:
        """Put the checkpoint just saved into use, if there is one.

        Called when the step's metrics are written: a run that resumes after the step would not write them again.
        """
        if self._committed_step == self._saved_step:
            return
        run = Path(self.config.trainer.default_local_dir)
        recorded = checkpoints.partial(run, self._saved_step) / checkpoints.RECORDED_FILE
        runfolder.write_atomically(recorded, json.dumps(self.recorded_state()))
        folder = checkpoints.commit(run, self._saved_step)
        self._committed_step = self._saved_step
        checkpoints.prune(run, self.config.trainer.max_actor_ckpt_to_keep)
        self.checkpoint_callback.on_save(
            trainer=self, global_step=self._saved_step, checkpoint_dir=str(folder), async_save=False
        )

    def _load_checkpoint(self) -> None:
        self.global_steps = 0
        trainer = self.config.trainer
        match trainer.resume_mode:
            case "disable":
                checkpoints.forget(Path(trainer.default_local_dir))
                return
            case "auto":
                folder = checkpoints.latest(Path(trainer.default_local_dir))
            case "resume_path":
                folder = Path(trainer.resume_from_path)
        if folder is None:
            return
        self.global_steps = checkpoints.step_of(folder)
        self.actor_rollout_wg.load_extra(str(folder / "relift"), self.uses_separate_moments())
        self.actor_rollout_wg.load_checkpoint(str(folder / "actor"), del_local_after_load=False)
        self.train_dataloader.load_state_dict(torch.load(folder / "data.pt", weights_only=True))
        self.load_state_dict(json.loads((folder / checkpoints.STATE_FILE).read_text()))
        recorded = folder / checkpoints.RECORDED_FILE
        if recorded.exists():
            self.load_recorded_state(json.loads(recorded.read_text()))

    # ---- the processes of the run ------------------------------------------------------------------------------------

    def workers(self) -> Actors:
        """Return the training workers, each with a name for people; none before they are started."""
        group = getattr(self, "actor_rollout_wg", None)
        return [(f"training worker {rank}", worker) for rank, worker in enumerate(group.workers if group else [])]

    def servers(self) -> Actors:
        """Return the vLLM servers, each with a name for people."""
        manager = getattr(self, "llm_server_manager", None)
        return [(f"vLLM server {i}", server) for i, server in enumerate(manager.server_handles if manager else [])]
