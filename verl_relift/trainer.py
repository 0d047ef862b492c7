"""A training step of any method. docs/step.md draws it.

    1. draw questions; the method makes prompts of them        `_submit_batch_to_rollout`, methods/
    2. vLLM answers, rollouts are graded while others sample   rollout/
    3. the method asks again, leaves out, collects             `_retry`, `_keep`, methods/, demonstrations/
    4. one RL update, perhaps with demonstrations in it        `_update_policy`, actor/
    5. supervised updates that are due                         `_update_supervised`, actor/
    6. weights to vLLM, once                                   `send_weights`

The order of the step is in `make_step`; what is computed is the method's (`verl_relift/methods`).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer

from .actor.batch import demonstration_batch, jagged
from .checks import chosen_method, data_parallel_size, program_settings
from .data.chat import answer_start, opens_thought, prompt_ids
from .methods import Resources
from .methods.placement import SplicedRows, SupervisedUpdate
from .rewards.problems import has_own_function
from .rollout.advantages import write_guided
from .rollout.dataset import TrainingSet
from .rollout.groups import draw_of, read_groups
from .rollout.prompts import prompt_token_ids
from .rollout.questions import questions_of
from .rollout.reward import load_reward_function
from .rollout.rows import graded_metrics, loss_shares, outcome_fractions, reward_columns, write_edited
from .run import console
from .run.runaway import Runaway
from .settings import reuses_log_probs
from .types import Group, Prompt, Question, Role
from .verl_trainer import ResumableTrainer

# Columns of a step's rollouts that no loss reads: workers would fetch them like all others.
_NOT_FOR_WORKERS = {"uid", "extra_fields", "rm_scores", "num_turns", "returns", "data_source", "reward_model"}

_SUPERVISED_METRICS = ("loss", "nll", "entropy", "grad_norm", "lr")


class MethodTrainer(ResumableTrainer):
    """verl's synchronous trainer in which a method says what a step trains on."""

    def __init__(self, config: DictConfig):
        super().__init__(config)
        self.settings = program_settings(config)
        self._method_class, self._method_settings = chosen_method(config)
        self.needs = self._method_class.needs(self._method_settings)
        self.method = None  # from the tokenizer and the data set on
        self._reuses_log_probs = reuses_log_probs(config)
        if self._reuses_log_probs:
            # verl compares rollouts with log-probs before the update even where it corrects nothing.
            self.config.algorithm.rollout_correction = None
        self._weighs = self._method_class.weighs_tokens(self._method_settings)
        self._prompts: dict[str, Prompt] = {}  # of the running step, by draw
        self._filtered: list[Group] = []  # of the running step: kept out of the RL update by algorithm.filter_groups
        self._runaway = Runaway()
        self._graded: Sequence[Group] = []  # of the running step, where the method's edit has left rollouts out

    # ---- the step ------------------------------------------------------------------------------------------------

    def make_step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Make one training step; returns the rows that its metrics are computed from."""
        if not self.needs.rollouts:
            return self._step_without_rollouts(metrics, timing_raw)
        method, step = self.method, self.global_steps
        with marked_timer("gen", timing_raw):
            batch = self._retry(self._roll_out(metrics))
            self.on_sample_end()
        if self.reward_loop_manager.reward_loop_worker_handles is None:
            with marked_timer("reward", timing_raw):
                batch = self._compute_reward_colocate(batch, metrics)
        with marked_timer("collect", timing_raw):
            groups = self._groups_of(batch) if method.reads_groups() or self.settings.rollout.batched else []
            batch = self._keep(batch, groups, method.edit(groups, step))
            everything = sorted([*groups, *self._filtered], key=lambda group: group.question.draw)
            if everything:
                metrics["training/accuracy"] = fmean(group.accuracy for group in everything)
                metrics.update(outcome_fractions(everything))
            supervised = method.supervised(everything, step)
        with marked_timer("balance", timing_raw):
            batch = self._balance_batch(batch, metrics)
        if not self._reuses_log_probs:
            with marked_timer("old_log_prob", timing_raw):
                batch = self._compute_old_log_prob(batch, metrics)
        if self.use_reference_policy:
            with marked_timer("ref", timing_raw):
                batch = self._compute_ref_log_prob(batch, metrics)
        with marked_timer("adv", timing_raw):
            batch = self._compute_advantage(batch, metrics)
        with marked_timer("update_actor", timing_raw):
            batch = self._update_policy(batch, supervised.spliced, metrics)
        with marked_timer("collect", timing_raw):
            updates = supervised.updates()
        with marked_timer("update_actor_sft", timing_raw):
            self._make_updates(updates, metrics)
        metrics.update(method.metrics())
        return batch

    def _step_without_rollouts(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Make the supervised updates that are due on the questions of the step."""
        with marked_timer("collect", timing_raw):
            questions = questions_of(self._next_train_batch(), self._target_column, self.needs.hints_column)
            groups = [Group(Prompt.bare(question)) for question in questions]
            updates = self.method.supervised(groups, self.global_steps).updates()
        with marked_timer("update_actor_sft", timing_raw):
            self._make_updates(updates, metrics)
        metrics.update(self.method.metrics())
        return self._register(questions, "finished")

    def _roll_out(self, metrics: dict) -> KVBatchMeta:
        """Draw the step's questions, have them answered and graded."""
        self._prompts, self._filtered = {}, []
        metrics.update(self.prepare_step())
        return self._sample(self.config.data.train_batch_size, metrics)

    def _sample(self, count: int, metrics: dict) -> KVBatchMeta:
        """Wait for `count` groups; returns their rows in the order of their names."""
        self.on_sample_begin()
        batch, sampled = self.replay_buffer.sample(
            global_steps=self.global_steps, partition_id="train", batch_size=count
        )
        metrics.update(sampled)
        batch.extra_info["temperature"] = self.config.actor_rollout_ref.rollout.temperature
        return self.in_order(batch)

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        """Ask what the method makes of the questions; verl calls it for a step's questions and for refills."""
        questions = questions_of(batch, self._target_column, self.needs.hints_column)
        prompts = self.method.prompts(questions, self.global_steps)
        if [prompt.question.draw for prompt in prompts] != [question.draw for question in questions]:
            raise ValueError(f"step {self.global_steps}: a method makes one prompt of each question, in their order")
        self._prompts |= {prompt.question.draw: prompt for prompt in prompts}
        if not self.settings.rollout.batched:
            if self._target_column is not None and self._target_column in batch:
                batch.pop(self._target_column)  # it would be copied n times through TransferQueue
            return super()._submit_batch_to_rollout(batch)
        self._ask(prompts)
        return len(prompts)

    def _ask(self, prompts: Sequence[Prompt]) -> None:
        self._register([prompt.question for prompt in prompts], "pending")
        self.agent_loop_manager.generate(prompts, self.global_steps)

    def _register(self, questions: Sequence[Question], status: str) -> KVBatchMeta:
        """Note the draws in TransferQueue, as verl's sampler expects them."""
        tags = [{"is_prompt": True, "status": status, "global_steps": self.global_steps} for _ in questions]
        return tq.kv_batch_put(keys=[question.draw for question in questions], partition_id="train", tags=tags)

    def _retry(self, batch: KVBatchMeta) -> KVBatchMeta:
        """Ask again as long as the method wants to; new groups take the places of those of the same draw."""
        if not self._method_class.asks_again(self._method_settings):
            return batch
        groups = {group.question.draw: group for group in self._groups_of(batch)}
        aside: list[Group] = []
        attempt = 1
        while prompts := self.method.retry([*groups.values(), *aside], self.global_steps, attempt):
            draws = [prompt.question.draw for prompt in prompts]
            if len(set(draws)) < len(draws) or not groups.keys() >= set(draws):
                raise ValueError(f"step {self.global_steps}: the method retries a draw twice, or one of another step")
            asked = [replace(_apart(prompt, attempt), attempt=attempt) for prompt in prompts]
            self._prompts |= {prompt.question.draw: prompt for prompt in asked}
            replaced = {prompt.question.draw for prompt in asked if not prompt.aside}
            batch = self._without(batch, [key for key in batch.keys if draw_of(key) in replaced])
            self._ask(asked)
            new, aside = self._set_aside(self._sample(len(asked), {}))
            groups |= {group.question.draw: group for group in self._groups_of(new)}
            batch = self.in_order(replace(batch, keys=[*batch.keys, *new.keys], tags=[*batch.tags, *new.tags]))
            attempt += 1
        return batch

    def _set_aside(self, batch: KVBatchMeta) -> tuple[KVBatchMeta, list[Group]]:
        """Take rows that are for the method alone out of TransferQueue; returns the rest, and their groups."""
        keys = [key for key in batch.keys if self._prompts[draw_of(key)].aside]
        groups = self._groups_of(_only(batch, keys), with_tokens=True)
        return self._without(batch, keys), groups

    def _groups_of(self, batch: KVBatchMeta, with_tokens: bool = False) -> list[Group]:
        if not batch.keys:
            return []
        return read_groups(batch, self._prompts, self.settings.reward.correct_from, with_tokens)

    def _keep_filtered(self, rows: KVBatchMeta) -> None:
        """Note groups that `algorithm.filter_groups` is about to remove: among them is what every rollout failed."""
        self._filtered += self._groups_of(self.in_order(rows))

    def _keep(self, batch: KVBatchMeta, groups: Sequence[Group], edited: Sequence[Group]) -> KVBatchMeta:
        """Leave out the rollouts that the method's edit has left out, and add the rows that it has added."""
        kept = {rollout.key for group in edited for rollout in group.rollouts}
        if groups and not kept:
            raise ValueError(f"step {self.global_steps}: the method's edit leaves no rollout for the policy update")
        dropped = [rollout.key for group in groups for rollout in group.rollouts if rollout.key not in kept]
        self._graded = groups if dropped else []
        return self.in_order(self._without(write_edited(batch, edited, self.config), dropped))

    def _without(self, batch: KVBatchMeta, keys: Sequence[str]) -> KVBatchMeta:
        if not keys:
            return batch
        tq.kv_clear(keys=list(keys), partition_id=batch.partition_id)
        removed = set(keys)
        return _only(batch, [key for key in batch.keys if key not in removed])

    def _update_policy(self, batch: KVBatchMeta, spliced: SplicedRows | None, metrics: dict) -> KVBatchMeta:
        """Make verl's RL update, with demonstrations in its last mini-batch where the method splices some."""
        if spliced is not None:
            self.actor_rollout_wg.splice_sft(
                self._batch_of(
                    spliced.demonstrations, sft_entropy_coeff=spliced.entropy_coeff, sft_weight=spliced.weight
                )
            )
        if batch.fields:
            unread = _NOT_FOR_WORKERS - ({"rm_scores"} if self._method_class.reads_rewards else set())
            batch.fields = [name for name in batch.fields if name not in unread]
        if self._method_class.changes_rows():
            # As many optimizer steps as without the method, whatever the number of rows.
            batch.extra_info["mini_batches"] = self._mini_batches()
        every = self.settings.gradient_shares_every
        if every and self.global_steps % every == 0 and (self._weighs or spliced is not None):
            batch.extra_info["gradient_shares"] = True
        if self._weighs:
            coefficients = self.method.coefficients(self.global_steps)
            batch.extra_info["coefficients"] = {role.name: value for role, value in coefficients.items()}
        batch = self._update_actor(batch, metrics)
        if spliced is not None:
            for name in ("loss", "nll", "entropy"):
                metrics[f"relift/sft_{name}"] = metrics.pop(f"actor/sft_{name}")
            # There is one gradient and one step.
            metrics["relift/sft_grad_norm"], metrics["relift/sft_lr"] = metrics["actor/grad_norm"], metrics["actor/lr"]
        metrics.update(loss_shares(metrics, spliced.weight if spliced is not None else 0.0))
        if self._reuses_log_probs:
            # Under the names that a pass of their own gives them.
            if "actor/entropy_loss" in metrics:
                metrics["actor/entropy"] = metrics["actor/entropy_loss"]
            for name in ("rollout_probs_diff_max", "rollout_log_probs_diff_max"):
                if f"actor/{name}" in metrics:
                    metrics[f"training/{name}"] = metrics.pop(f"actor/{name}")
        return batch

    def _make_updates(self, updates: Sequence[SupervisedUpdate], metrics: dict) -> None:
        """Make an optimizer step on each batch of demonstrations; a step's metrics are means over its updates."""
        made = [self._update_supervised(update) for update in updates]
        for name in _SUPERVISED_METRICS:
            values = [metrics_of[name] for metrics_of in made if name in metrics_of]
            if values:
                metrics[f"relift/sft_{name}"] = sum(values) / len(values)

    def _update_supervised(self, update: SupervisedUpdate) -> dict[str, float]:
        """Make an optimizer step on demonstrations alone; returns its metrics."""
        output = self.actor_rollout_wg.update_actor_sft(
            self._batch_of(
                update.demonstrations,
                update.max_token_len_per_gpu,
                sft_lr=update.lr,
                sft_clip_grad=update.clip_grad,
                sft_entropy_coeff=update.entropy_coeff,
                sft_epochs=update.epochs,
                sft_separate=update.separate_moments,
            )
        )
        return tu.get(output, "metrics")

    def _batch_of(self, demonstrations: Sequence[Any], max_tokens: int | None = None, **settings: Any) -> TensorDict:
        budget = max_tokens or self.config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu
        return demonstration_batch(demonstrations, budget, **settings)

    # ---- verl's hooks --------------------------------------------------------------------------------------------

    def _setup(self) -> None:
        super()._setup()
        if self.method.reads_groups() and hasattr(self.replay_buffer, "before_clearing"):
            self.replay_buffer.before_clearing = self._keep_filtered
        if self._weighs:
            self.actor_rollout_wg.set_method(OmegaConf.to_container(self.config.method, resolve=True))

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        if self.settings.rollout.batched or has_own_function(self.config):
            return
        # verl's reward workers see no prompt, so they are told here how all of them end.
        messages = [{"role": "user", "content": "question"}]
        ids = prompt_ids(self.tokenizer, messages, **self.config.data.get("apply_chat_template_kwargs", {}))
        function = self.config.reward.custom_reward_function
        with open_dict(function):
            opens = opens_thought(answer_start(self.tokenizer, ids, messages))
            function.reward_kwargs = {"prompt_opens_thought": opens, **(function.get("reward_kwargs") or {})}

    def _mini_batches(self) -> int:
        return self.config.data.train_batch_size // self.config.actor_rollout_ref.actor.ppo_mini_batch_size

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        if self._method_class.changes_rows():
            return dp_size * self._mini_batches()
        return super()._get_required_batch_multiple(dp_size)

    def _balance_batch(self, batch: KVBatchMeta, metrics, *args, **kwargs) -> KVBatchMeta:
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        padding = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if tag.get("is_padding", False)]
        if padding and self._method_class.writes_roles():
            # verl's padding rows copy a rollout's columns, but for those whose length it knows.
            roles = jagged([torch.tensor([Role.OWN])] * len(padding))
            columns = TensorDict({"roles": roles}, batch_size=[len(padding)])
            tq.kv_batch_put(keys=padding, partition_id=batch.partition_id, fields=columns)
        return batch

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        wanted, data = self.needs.demonstrations, self.config.data
        self._target_column = wanted.column if wanted is not None else None
        available, rows = 0, self.train_dataset.dataframe
        if self._target_column in rows.column_names:  # with a teacher it need not be
            column = self._target_column
            available = sum(len(t) - t[column].null_count for t in rows.with_format("arrow").iter(10_000))
        template = dict(data.get("apply_chat_template_kwargs", {}))
        encode = partial(_encode, self.tokenizer, template, data.max_prompt_length)
        self.method = self._method_class(
            self._method_settings,
            Resources(
                tokenizer=self.tokenizer,
                encode_prompt=encode,
                reward=load_reward_function(self.config),
                seed=data.seed,
                data_parallel_size=data_parallel_size(self.config),
                folder=Path(self.config.trainer.default_local_dir),
                available=available,
                training_set=TrainingSet(self.train_dataset, self._target_column),
                rollouts=self.config.actor_rollout_ref.rollout.n,
            ),
        )

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        correction = self.config.algorithm.get("rollout_correction") or {}
        recomputed = not correction.get("bypass_mode", False)
        if recomputed and self.config.actor_rollout_ref.rollout.calculate_log_probs:
            # verl compares probabilities, which hides a difference on unlikely tokens.
            fields = ["old_log_probs", "rollout_log_probs", "response_mask"]
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
            ours, theirs, sampled = (torch.cat(list(data[name].unbind())) for name in fields)
            ours, theirs = ours[sampled.bool()], theirs[sampled.bool()]
            metrics["training/rollout_log_probs_diff_max"] = (ours - theirs).abs().max().item()
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        if self._method_class.writes_roles():
            write_guided(batch, self.config.algorithm.norm_adv_by_std_in_grpo)
        return batch

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch) -> None:
        if self.needs.rollouts:
            # Scores and lengths are those of rollouts; verl leaves padding out of them, and counts its tokens.
            tags = [{**tag, "is_padding": True} if tag.get("added") else tag for tag in batch.tags]
            if not all(tag.get("is_padding", False) for tag in tags):
                batch = replace(batch, tags=tags)
            super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
            metrics.update(graded_metrics(self._graded))
            for line in self._runaway.lines(metrics, global_steps):
                console.say(line)
            return
        metrics.update({f"timing_s/{name}": value for name, value in timing_raw.items()})
        metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
        self.add_startup(metrics)

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict, rollout_data_dir: str) -> None:
        if self.needs.rollouts:
            rollouts = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("added")]
            super()._log_rollout_data(batch.select_keys(rollouts), timing_raw, rollout_data_dir)

    def _dump_generations(self, inputs, outputs, gts, scores, reward_extra_infos_dict, dump_path) -> None:
        columns = reward_extra_infos_dict
        if dump_path != self.config.trainer.validation_data_dir:  # verl adds what the reward said to validation only
            columns = columns | reward_columns(columns["uid"])
        # By text, because verl's order is that of names which it draws: two runs can be compared line by line.
        order = sorted(range(len(inputs)), key=lambda i: (inputs[i], outputs[i]))
        in_order = [[values[i] for i in order] for values in (inputs, outputs, gts, scores)]
        columns = {name: [values[i] for i in order] for name, values in columns.items() if len(values) == len(order)}
        super()._dump_generations(*in_order, columns, dump_path)

    # Without rollouts vLLM has nothing to answer but validation, for which it wakes with the weights of then.

    def on_init_end(self) -> None:
        if self.needs.rollouts:
            super().on_init_end()

    def on_validate_begin(self) -> None:
        super().on_validate_begin()
        if not self.needs.rollouts:
            self.checkpoint_manager.update_weights(self.global_steps)

    def on_validate_end(self) -> None:
        if not self.needs.rollouts:
            self.checkpoint_manager.sleep_replicas()
        super().on_validate_end()

    def send_weights(self) -> None:
        if self.needs.rollouts:
            super().send_weights()

    def state_dict(self) -> dict[str, Any]:
        return self.method.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state)

    def recorded_state(self) -> dict[str, Any]:
        return {"runaway": self._runaway.state_dict()}

    def load_recorded_state(self, state: dict[str, Any]) -> None:
        self._runaway.load_state_dict(state["runaway"])

    def uses_separate_moments(self) -> bool:
        return self.needs.separate_moments

    def close(self) -> None:
        """End what runs beside the trainer."""
        if self.method is not None:
            self.method.close()


def _only(batch: KVBatchMeta, keys: Sequence[str]) -> KVBatchMeta:
    """Return some rows of a batch."""
    tags = dict(zip(batch.keys, batch.tags, strict=True))
    return replace(batch, keys=list(keys), tags=[tags[key] for key in keys], fields=None)


def _apart(prompt: Prompt, attempt: int) -> Prompt:
    """Return a prompt that is set aside under a name of its own: the rows of its draw stay where they are."""
    question = prompt.question
    return replace(prompt, question=replace(question, draw=f"{question.draw}-{attempt}")) if prompt.aside else prompt


def _encode(tokenizer, template_kwargs: dict[str, Any], max_tokens: int, question: Question) -> tuple[int, ...]:
    return tuple(prompt_token_ids(tokenizer, question.messages, template_kwargs, max_tokens))
