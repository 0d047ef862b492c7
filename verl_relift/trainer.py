"""One ReLIFT training step on verl's trainer.

The six steps of arXiv 2506.07527 and where they happen:

    1. sample questions, n rollouts each      verl (`_add_batch_to_generate`), rollout/
    2. grade every rollout                    rollout/worker.py, while others are generated
    3. hardest: acc(q) <= p                   `_collect_hardest`, hardest.py
    4. verified demonstrations -> buffer      `_collect_hardest`, demonstrations/, buffer.py
    5. GRPO update on all rollouts            verl (`_update_actor` of the base class)
    6. one supervised update when M wait      `_interleave` or `_splice`, schedule.py, actor/worker.py
       weights to vLLM once, carrying both    verl (`on_step_end`)

A step is a function of the checkpoint before it: questions have names made of step and place, rollouts are put into
the order of their names whatever the order in which they finished, and every draw is seeded by the step.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import psutil
import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer

from .actor.worker import ReLIFTWorker
from .demonstrations.buffer import Demonstration, DemonstrationBuffer
from .demonstrations.verify import Question, Rejected, make_demonstration
from .methods.gate import group_accuracy, is_hardest
from .methods.schedule import sft_learning_rate, updates_due
from .run import checkpoints, garbage, stopping
from .run import folder as runfolder
from .settings import Overlong, ReLIFTSettings, Select, SFTMode, SFTOptimizer, Source, reuses_log_probs

logger = logging.getLogger(__name__)

# Between two looks at TransferQueue while rollouts are generated, seconds. verl's two seconds would be most of a step
# of a small model.
POLL_INTERVAL = 0.05

# For a batch of rollouts to be stored, seconds.
WAIT_AT_MOST = 1.0

# Columns of a step's rollouts that no loss reads: workers would fetch them like all others.
_NOT_FOR_WORKERS = {"uid", "extra_fields", "rm_scores", "num_turns", "returns", "data_source", "reward_model"}

_ACTOR_ROLES = {Role.Actor, Role.ActorRollout, Role.ActorRolloutRef}

STATE_FILE = Path("relift") / "state.json"  # in a checkpoint's folder


class ReLIFTTrainer(PPOTrainerSync):
    """verl's synchronous trainer with hardest-question collection and interleaved supervised updates."""

    def __init__(self, config: DictConfig):
        super().__init__(config)
        self.settings = ReLIFTSettings.from_mapping(OmegaConf.to_container(config.relift, resolve=True))
        self._reuses_log_probs = reuses_log_probs(self.config)
        if self._reuses_log_probs:
            # verl compares rollouts with log-probs before the update even where it corrects nothing.
            self.config.algorithm.rollout_correction = None
        self.global_steps = 0  # verl's; what fails before it is set fails in step 0
        self.buffer = DemonstrationBuffer(self.settings.buffer)
        self.sft_updates = 0
        self.sft_tokens = 0  # trained on in supervised updates, prompts included, each epoch's batch once
        self.accepted = 0
        self.rejected: Counter[Rejected] = Counter()
        self.used: set[str] = set()  # questions whose demonstration was trained on
        self.available = 0  # rows of the training set with a solution
        self.teacher = None
        if self.settings.enable and self.settings.demonstrations.source is not Source.DATASET:
            from .demonstrations.teacher import Teacher

            cache = self.settings.teacher.cache_dir or Path(config.trainer.default_local_dir) / "teacher"
            self.teacher = Teacher(self.settings.teacher, Path(cache))
        self.stopped_after: int | None = None  # the step, if stopping was requested with steps left
        self._saved_step: int | None = None  # of the last checkpoint
        self._committed_step: int | None = None  # of the last one that the tracker names
        self._startup: float | None = None  # seconds, until it has been logged
        self._metrics_file: runfolder.MetricsFile | None = None
        self._questions: dict[str, dict[str, Any]] = {}  # uid -> row of the data set, for the running step
        self._questions_of = -1  # that step
        self._drawn = 0  # questions drawn for it
        self._spliced: list[Demonstration] = []  # that the running RL update carries

    # ---- assembly: verl's hooks ----------------------------------------------------------------------------------

    def _build_replay_buffer(self):
        replay_buffer = super()._build_replay_buffer()
        replay_buffer.poll_interval = POLL_INTERVAL
        wait = replay_buffer._wait_for_next_poll

        def wait_and_watch(partition_id: str, last_debug_time: float) -> float:
            if hasattr(self.agent_loop_manager, "wait_for_batch"):
                # Every look asks TransferQueue about all rows; a batch that is stored needs no more than one.
                waited = self.agent_loop_manager.wait_for_batch(WAIT_AT_MOST)
                replay_buffer.poll_interval = 0.0 if waited else POLL_INTERVAL
            return wait(partition_id, last_debug_time)

        replay_buffer._wait_for_next_poll = wait_and_watch
        return replay_buffer

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in _ACTOR_ROLES & self.role_worker_mapping.keys():
            self.role_worker_mapping[role] = ray.remote(ReLIFTWorker)

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        if not self.settings.enable:
            return
        column, rows = self.settings.demonstrations.column, self.train_dataset.dataframe
        if column in rows.column_names:  # with a teacher it need not be
            self.available = sum(len(t) - t[column].null_count for t in rows.with_format("arrow").iter(10_000))

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        batch = super()._next_train_batch(num_prompts)
        if self._questions_of != self.global_steps:
            self._questions_of, self._questions, self._drawn = self.global_steps, {}, 0
        # Random names would make the order of a step's rollouts, and so its last bits, differ between runs.
        uids = [f"{self.global_steps}-{place:06d}" for place in range(self._drawn, self._drawn + len(batch))]
        self._drawn += len(batch)
        batch["uid"] = NonTensorStack(*uids)
        if not self.settings.enable:
            return batch
        column = self.settings.demonstrations.column
        targets = list(batch[column]) if column in batch else [None] * len(batch)
        columns = (targets, list(batch["reward_model"]), list(batch["raw_prompt"]))
        names = ("target", "reward_model", "messages")
        self._questions |= {uid: dict(zip(names, row, strict=True)) for uid, *row in zip(uids, *columns, strict=True)}
        # Needed here only, and only for the hardest questions: no reason to copy it n times through TransferQueue.
        batch.pop(column, None)
        return batch

    def on_train_begin(self) -> None:
        super().on_train_begin()
        garbage.freeze()
        # From the command to the first question sent out.
        self._startup = time.time() - psutil.Process().create_time()
        if stopping.stop_requested():
            self._stop_after(self.global_steps - 1)  # nothing has changed since the checkpoint

    def on_step_end(self) -> None:
        if stopping.stop_requested() and self.global_steps < self.total_training_steps:
            if self._saved_step != self.global_steps:
                with marked_timer("save_checkpoint", self.timing_raw):
                    self._save_checkpoint()
            self._stop_after(self.global_steps)
        self.send_weights()

    def send_weights(self) -> None:
        """The weights of both updates to vLLM."""
        super().on_step_end()

    def _stop_after(self, step: int) -> None:
        self.stopped_after = step
        self.total_training_steps = step  # what fit() compares before the next step

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch) -> None:
        if self._reuses_log_probs:
            timing_raw.pop("old_log_prob", None)  # no pass was made
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        self._add_startup(metrics)

    def _add_startup(self, metrics: dict) -> None:
        if self._startup is not None:
            metrics["timing_s/startup"], self._startup = self._startup, None

    def _balance_batch(self, batch: KVBatchMeta, metrics, *args, **kwargs) -> KVBatchMeta:
        names = [(uid, int(sample)) for uid, sample, _ in (key.rsplit("_", 2) for key in batch.keys)]
        batch.reorder(sorted(range(len(names)), key=names.__getitem__))
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self._reuses_log_probs:
            return batch
        batch = super()._compute_old_log_prob(batch, metrics)
        correction = self.config.algorithm.get("rollout_correction") or {}
        recomputed = not correction.get("bypass_mode", False)
        if recomputed and self.config.actor_rollout_ref.rollout.calculate_log_probs:
            # verl compares probabilities, which hides a difference on unlikely tokens.
            fields = ["old_log_probs", "rollout_log_probs"]
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
            ours, theirs = (torch.cat(list(data[name].unbind())) for name in fields)
            metrics["training/rollout_log_probs_diff_max"] = (ours - theirs).abs().max().item()
        return batch

    # ---- the step ------------------------------------------------------------------------------------------------

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not self.settings.enable:
            return self._rl_update(batch, metrics)
        splicing = self.settings.sft.mode is SFTMode.SPLICE
        with marked_timer("collect_hardest", self.timing_raw):
            self._collect_hardest(batch, metrics)
            if splicing:
                self._splice()
        batch = self._rl_update(batch, metrics)
        if splicing:
            self._spliced_metrics(metrics)
        else:
            with marked_timer("update_actor_sft", self.timing_raw):
                self._interleave(metrics)
        self._count(metrics)
        return batch

    def _rl_update(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Step 5, verl's."""
        if batch.fields:
            batch.fields = [name for name in batch.fields if name not in _NOT_FOR_WORKERS]
        batch = super()._update_actor(batch, metrics)
        if self._reuses_log_probs:
            # Under the names that a pass of their own gives them.
            if "actor/entropy_loss" in metrics:
                metrics["actor/entropy"] = metrics["actor/entropy_loss"]
            for name in ("rollout_probs_diff_max", "rollout_log_probs_diff_max"):
                if f"actor/{name}" in metrics:
                    metrics[f"training/{name}"] = metrics.pop(f"actor/{name}")
        return batch

    def _collect_hardest(self, batch: KVBatchMeta, metrics: dict) -> None:
        """Steps 3 and 4: put a verified demonstration of every chosen question into the buffer."""
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        data = tq.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=["uid", "rm_scores", "extra_fields"]
        )
        uids = list(data["uid"])
        info = [extra["reward_extra_info"] for extra in data["extra_fields"]]
        scores = data["rm_scores"].sum(dim=1).tolist()
        # Rewards other than 0 and 1 may be configured; `acc` is whether the answer was right.
        accuracy = group_accuracy(uids, [float(i.get("acc", s)) for i, s in zip(info, scores, strict=True)])
        hardest = {uid for uid, a in accuracy.items() if is_hardest(a, self.settings.trigger.max_accuracy)}
        outcomes = Counter(i["outcome"] for i in info if "outcome" in i)
        metrics.update({f"relift/outcome/{name}": count / len(info) for name, count in outcomes.items()})
        metrics["relift/hardest_questions"] = len(hardest)
        metrics["relift/hardest_fraction"] = len(hardest) / len(accuracy)

        self._take_in_answers()
        chosen = self._choose(hardest, accuracy)
        recovered = 0
        for uid, prompt_ids in self._prompts_of(accuracy, uids, keys, batch.partition_id):
            key = question_key(prompt_ids)
            if uid not in hardest:
                recovered += key in self.used
            if uid in chosen:
                if key in self.buffer:
                    self.buffer.renew(key, self.global_steps)
                else:
                    self._obtain(key, prompt_ids, self._questions[uid])
            elif uid not in hardest:
                self.buffer.drop_solved(key)
        self.buffer.expire(self.global_steps)
        metrics["relift/hardest_recovered"] = recovered

    def _choose(self, hardest: set[str], accuracy: dict[str, float]) -> set[str]:
        match self.settings.trigger.select:
            case Select.HARDEST:
                return hardest
            case Select.ALL:
                return set(accuracy)
            case Select.OTHER:
                other = sorted(accuracy.keys() - hardest)
                return set(self._rng("select").sample(other, min(len(hardest), len(other))))

    def _rng(self, purpose: str) -> Random:
        """A generator for one purpose of one step: nothing of it needs to be in a checkpoint."""
        return Random(f"{self.config.data.seed}/{purpose}/{self.global_steps}/{self.sft_updates}")

    def _prompts_of(self, accuracy: dict[str, float], uids: list[str], keys: list[str], partition_id: str):
        """(uid, prompt token ids) of each question, as the rollouts saw it."""
        first = {uid: key for uid, key in zip(reversed(uids), reversed(keys), strict=True)}
        wanted = [first[uid] for uid in accuracy]
        prompts = tq.kv_batch_get(keys=wanted, partition_id=partition_id, select_fields=["prompts"])["prompts"]
        rows = prompts.unbind() if prompts.is_nested else list(prompts)
        return [(uid, tuple(row.tolist())) for uid, row in zip(accuracy, rows, strict=True)]

    def _obtain(self, key: str, prompt_ids: tuple[int, ...], row: dict[str, Any]) -> None:
        """Put the question's solution into the buffer, or ask the teacher for one."""
        source, ground_truth = self.settings.demonstrations.source, row["reward_model"]["ground_truth"]
        if source is not Source.TEACHER:
            question = Question(key, prompt_ids, ground_truth, row["target"])
            if self._offer(question, self.global_steps) or source is Source.DATASET:
                return
        messages = tuple({"role": m["role"], "content": m["content"]} for m in row["messages"])
        from .demonstrations.teacher import TeacherQuestion

        self.teacher.ask(TeacherQuestion(key, messages, ground_truth, prompt_ids, self.global_steps))

    def _offer(self, question: Question, step: int, from_teacher: bool = False) -> bool:
        settings = self.settings.demonstrations
        if from_teacher:  # what a teacher writes is not the user's to mend
            settings = dataclasses.replace(settings, overlong=Overlong.DROP)
        result = make_demonstration(question, step, self.tokenizer, settings)
        if isinstance(result, Rejected):
            self.rejected[result] += 1
            return False
        self.accepted += 1
        self.buffer.add(result)
        return True

    def _take_in_answers(self) -> None:
        """What the teacher has answered since the last step."""
        if self.teacher is None:
            return
        for answer in self.teacher.collect():
            question = answer.question
            if answer.text is not None and question.key not in self.buffer:
                solved = Question(question.key, question.prompt_ids, question.ground_truth, answer.text)
                self._offer(solved, question.step, from_teacher=True)

    def _updates_due(self) -> list[int]:
        settings = self.settings
        return updates_due(
            self.global_steps, len(self.buffer), settings.schedule, settings.sft, self._data_parallel_size()
        )

    def _data_parallel_size(self) -> int:
        return max(self.actor_rollout_wg._dispatch_info["actor"]) + 1  # verl asked the workers to balance the batch

    def _interleave(self, metrics: dict) -> None:
        """Step 6 by optimizer steps of its own: as many supervised updates as are due."""
        sft = self.settings.sft
        for size in self._updates_due():
            demonstrations = self._take(size)
            output = self.actor_rollout_wg.update_actor_sft(
                self._sft_batch(
                    demonstrations,
                    sft_lr=sft_learning_rate(self.sft_updates, sft),
                    sft_clip_grad=sft.clip_grad,
                    sft_entropy_coeff=sft.entropy_coeff,
                    sft_epochs=sft.epochs,
                    sft_separate=sft.optimizer is SFTOptimizer.SEPARATE,
                )
            )
            self._trained_on(demonstrations)
            for name, value in tu.get(output, "metrics").items():
                if name in ("loss", "nll", "entropy", "grad_norm", "lr"):
                    metrics[f"relift/sft_{name}"] = value

    def _splice(self) -> None:
        """Step 6 within the RL update that follows."""
        self._spliced = [demonstration for size in self._updates_due() for demonstration in self._take(size)]
        if self._spliced:
            sft = self.settings.sft
            self.actor_rollout_wg.splice_sft(
                self._sft_batch(self._spliced, sft_entropy_coeff=sft.entropy_coeff, sft_weight=sft.weight)
            )

    def _spliced_metrics(self, metrics: dict) -> None:
        if not self._spliced:
            return
        self._trained_on(self._spliced)
        for name in ("loss", "nll", "entropy"):
            metrics[f"relift/sft_{name}"] = metrics.pop(f"actor/sft_{name}")
        # There is one gradient and one step.
        metrics["relift/sft_grad_norm"], metrics["relift/sft_lr"] = metrics["actor/grad_norm"], metrics["actor/lr"]

    def _take(self, count: int) -> list[Demonstration]:
        return self.buffer.take(count, self._rng("take"))

    def _trained_on(self, demonstrations: list[Demonstration]) -> None:
        self.sft_updates += 1
        self.sft_tokens += sum(len(d.prompt_ids) + len(d.response_ids) for d in demonstrations)
        self.used.update(demonstration.question for demonstration in demonstrations)

    def _sft_batch(self, demonstrations: list[Demonstration], **settings) -> TensorDict:
        """Demonstrations as verl's engines take them: unpadded nested tensors, loss on the response only."""
        prompts = [torch.tensor(d.prompt_ids) for d in demonstrations]
        responses = [torch.tensor(d.response_ids) for d in demonstrations]
        pairs = list(zip(prompts, responses, strict=True))
        input_ids = [torch.cat(pair) for pair in pairs]
        sft, actor = self.settings.sft, self.config.actor_rollout_ref.actor
        return tu.get_tensordict(
            {
                "input_ids": _jagged(input_ids),
                "position_ids": _jagged([torch.arange(len(ids)) for ids in input_ids]),
                "loss_mask": _jagged([torch.cat([torch.zeros_like(p), torch.ones_like(r)]) for p, r in pairs]),
            },
            non_tensor_dict={
                "temperature": 1.0,
                "global_batch_size": len(demonstrations),
                "use_dynamic_bsz": True,
                "max_token_len_per_gpu": sft.max_token_len_per_gpu or actor.ppo_max_token_len_per_gpu,
                **settings,
            },
        )

    def _count(self, metrics: dict) -> None:
        metrics["relift/buffer_size"] = len(self.buffer)
        metrics["relift/sft_updates"] = self.sft_updates
        metrics["relift/sft_tokens"] = self.sft_tokens
        metrics["relift/demonstrations_accepted"] = self.accepted
        metrics["relift/demonstrations_used"] = len(self.used)
        metrics["relift/demonstration_fraction"] = len(self.used) / self.available if self.available else 0.0
        metrics.update({f"relift/demonstrations_rejected/{reason}": n for reason, n in self.rejected.items()})
        metrics.update({f"relift/demonstrations_evicted/{reason}": n for reason, n in self.buffer.evicted.items()})
        if self.teacher is not None:
            metrics.update({f"relift/teacher/{name}": value for name, value in self.teacher.metrics().items()})

    # ---- records -------------------------------------------------------------------------------------------------

    @property
    def logger(self):
        """verl's trackers, plus ``metrics.jsonl`` in the run's folder whatever they are."""
        return self._metrics_file

    @logger.setter
    def logger(self, tracking) -> None:
        self._metrics_file = runfolder.MetricsFile.beside(
            tracking, self.config.trainer.default_local_dir, self.global_steps, self._commit_checkpoint
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything of ReLIFT that a resumed run needs, as plain JSON types."""
        return {
            "buffer": self.buffer.state_dict(),
            "sft_updates": self.sft_updates,
            "sft_tokens": self.sft_tokens,
            "accepted": self.accepted,
            "rejected": {reason.value: count for reason, count in self.rejected.items()},
            "used": sorted(self.used),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state_dict`."""
        self.buffer.load_state_dict(state["buffer"])
        self.sft_updates = state["sft_updates"]
        self.sft_tokens = state["sft_tokens"]
        self.accepted = state["accepted"]
        self.rejected = Counter({Rejected(reason): count for reason, count in state["rejected"].items()})
        self.used = set(state["used"])
        if self.teacher is not None and state["teacher"] is not None:
            self.teacher.load_state_dict(state["teacher"])

    def _save_checkpoint(self) -> None:
        """verl's layout plus ``relift/``, written beside the last whole checkpoint, which stays in use until then."""
        run = Path(self.config.trainer.default_local_dir)
        folder = checkpoints.begin(run, self.global_steps)
        hdfs = self.config.trainer.default_hdfs_dir
        remote = hdfs and f"{hdfs}/global_step_{self.global_steps}/actor"
        # Old ones are removed later: verl would remove them before this one is whole.
        self.actor_rollout_wg.save_checkpoint(str(folder / "actor"), remote, self.global_steps, max_ckpt_to_keep=None)
        self.actor_rollout_wg.save_extra(str(folder / "relift"))
        torch.save(self.train_dataloader.state_dict(), folder / "data.pt")
        runfolder.write_atomically(folder / STATE_FILE, json.dumps(self.state_dict()))
        self._saved_step = self.global_steps

    def _commit_checkpoint(self) -> None:
        """Put the checkpoint just saved into use, if there is one.

        Called when the step's metrics are written: a run that resumes after the step would not write them again.
        """
        if self._committed_step == self._saved_step:
            return
        run = Path(self.config.trainer.default_local_dir)
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
                return
            case "auto":
                folder = checkpoints.latest(Path(trainer.default_local_dir))
            case "resume_path":
                folder = Path(trainer.resume_from_path)
        if folder is None:
            return
        self.global_steps = checkpoints.step_of(folder)
        logger.warning("resuming after step %d from %s", self.global_steps, folder)
        path = folder / STATE_FILE
        if not path.exists():
            raise checkpoints.CheckpointError(
                f"{path} is missing: the checkpoint is not one of ReLIFT's; start from its weights instead "
                "(actor_rollout_ref.model.path) with trainer.resume_mode=disable"
            )
        separate = self.settings.sft.optimizer is SFTOptimizer.SEPARATE
        self.actor_rollout_wg.load_extra(str(folder / "relift"), separate)
        self.actor_rollout_wg.load_checkpoint(str(folder / "actor"), del_local_after_load=False)
        self.train_dataloader.load_state_dict(torch.load(folder / "data.pt", weights_only=True))
        self.load_state_dict(json.loads(path.read_text()))

    def workers(self) -> list[tuple[str, ray.actor.ActorHandle]]:
        """The training workers, each with a name for people; none before they are started."""
        group = getattr(self, "actor_rollout_wg", None)
        return [(f"training worker {rank}", worker) for rank, worker in enumerate(group.workers if group else [])]

    def servers(self) -> list[tuple[str, ray.actor.ActorHandle]]:
        """The vLLM servers, likewise."""
        manager = getattr(self, "llm_server_manager", None)
        return [(f"vLLM server {i}", server) for i, server in enumerate(manager.server_handles if manager else [])]

    def close(self) -> None:
        """End what runs beside the trainer."""
        if self.teacher is not None:
            self.teacher.close()


def question_key(prompt_ids: tuple[int, ...]) -> str:
    """The identity of a question: what the model is asked, whatever row of whatever epoch it comes from."""
    return hashlib.blake2b(",".join(map(str, prompt_ids)).encode(), digest_size=12).hexdigest()


def _jagged(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)
