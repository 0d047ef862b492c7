"""From a batch of questions to graded rollouts in TransferQueue.

The order of events that verl's replay buffer relies on: a group's rollouts are stored, then its question is marked
``finished``.
"""

import asyncio
import hashlib
import inspect
from functools import partial
from typing import Any
from uuid import uuid4

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import NonTensorStack, TensorDict
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.utils.reward_score import default_compute_score

from ..rewards import verl_hook
from .prompts import prompt_token_ids
from .server import Group, Rollout

# Rollouts of one write, unless fewer are left: TransferQueue's work for a write and its columns is that of hundreds of
# rows.
WRITE_ROWS = 512


class RolloutWorker:
    """Answers questions through the vLLM servers, grades the answers, stores both."""

    def __init__(self, config: DictConfig, servers: list, tokenizer, seed: int | None):
        """
        Args:
            config: the whole configuration.
            servers: Ray handles of :class:`~verl_relift.rollout.server.GroupServer`.
            tokenizer: of the policy.
            seed: makes sampling a function of (seed, step, question); None leaves it to the engine.
        """
        self._rollout = config.actor_rollout_ref.rollout
        self._template_kwargs = dict(config.data.get("apply_chat_template_kwargs", {}))
        self._keep_ground_truth = bool(config.trainer.get("rollout_data_dir"))
        self._servers = servers
        self._tokenizer = tokenizer
        self._seed = seed
        self._score = get_custom_reward_fn(config) or default_compute_score
        # verl wraps a coroutine function in one of its own.
        self._score_is_async = inspect.iscoroutinefunction(getattr(self._score, "func", self._score))
        function = config.reward.get("custom_reward_function") or {}
        if function.get("path") == verl_hook.PATH:
            verl_hook.start_judge(**function.get("reward_kwargs", {}))

    async def generate(self, questions: list[dict[str, Any]], global_steps: int, validate: bool) -> None:
        """Answer ``questions`` (rows of the data set with their ``uid``) and return when all are stored."""
        partition = "val" if validate else "train"
        prompts = [
            prompt_token_ids(self._tokenizer, q["raw_prompt"], self._template_kwargs, self._rollout.prompt_length)
            for q in questions
        ]
        stored: asyncio.Queue = asyncio.Queue()
        writer = asyncio.create_task(self._store(stored, len(questions), partition, global_steps, validate))
        shares = [range(i, len(questions), len(self._servers)) for i in range(len(self._servers))]
        asked = [
            self._ask(
                server, [questions[i] for i in share], [prompts[i] for i in share], global_steps, validate, stored
            )
            for server, share in zip(self._servers, shares, strict=True)
            if share
        ]
        try:
            await asyncio.gather(*asked)
            await writer
        finally:
            writer.cancel()  # it would wait for ever for the answers of a server that died

    def _sampling(self, validate: bool) -> dict[str, Any]:
        source = self._rollout.val_kwargs if validate else self._rollout
        return {
            "temperature": source.temperature,
            "top_p": source.top_p,
            "top_k": source.top_k,
            "max_tokens": self._rollout.response_length,
            "logprobs": self._rollout.calculate_log_probs and not validate,
        }

    def _seeds(self, prompts: list[list[int]], global_steps: int) -> list[int] | None:
        """One 63-bit seed per question from (seed, step, prompt): the same on any servers and after a resume."""
        if self._seed is None:
            return None
        seeds = []
        for prompt in prompts:
            text = f"{self._seed}/{global_steps}/{','.join(map(str, prompt))}"
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            seeds.append(int.from_bytes(digest, "little") >> 1)
        return seeds

    async def _ask(self, server, questions, prompts, global_steps, validate, stored: asyncio.Queue) -> None:
        n = self._rollout.val_kwargs.n if validate else self._rollout.n
        groups = server.generate_groups.remote(
            prompts, self._sampling(validate), n, self._seeds(prompts, global_steps), uuid4().hex
        )
        grading = []
        async for reference in groups:
            group: Group = await reference
            grading.append(
                asyncio.create_task(self._grade(questions[group.index], prompts[group.index], group, stored))
            )
        await asyncio.gather(*grading)

    async def _grade(self, question: dict, prompt: list[int], group: Group, stored: asyncio.Queue) -> None:
        if group.error is not None:
            raise RuntimeError(f"vLLM could not answer question {question['uid']}: {group.error}")
        scores = await asyncio.gather(*[self._score_one(question, rollout) for rollout in group.rollouts])
        await stored.put((question, prompt, group, scores))

    async def _score_one(self, question: dict, rollout: Rollout) -> dict[str, Any]:
        score = self._score if self._score_is_async else partial(asyncio.to_thread, self._score)
        result = await score(
            data_source=question["data_source"],
            solution_str=self._tokenizer.decode(rollout.token_ids, skip_special_tokens=True),
            ground_truth=question["reward_model"]["ground_truth"],
            extra_info=question.get("extra_info", {}),
        )
        return result if isinstance(result, dict) else {"score": float(result), "acc": float(result)}

    async def _store(self, stored: asyncio.Queue, count: int, partition: str, global_steps: int, validate: bool):
        """Write groups as they come, WRITE_ROWS rollouts or more at a time."""
        done = 0
        while done < count:
            items, waiting = [], 0
            while done < count and (waiting < WRITE_ROWS or not stored.empty()):
                items.append(await stored.get())
                waiting += len(items[-1][2].rollouts)
                done += 1
            rows = [row for item in items for row in _rows(*item)]
            await tq.async_kv_batch_put(
                keys=[f"{q['uid']}_{k}_0" for q, _, _, k, _, _ in rows],
                fields=self._fields(rows, validate),
                tags=[_tag(prompt, rollout, group, global_steps) for _, prompt, group, _, rollout, _ in rows],
                partition_id=partition,
            )
            await tq.async_kv_batch_put(
                keys=[question["uid"] for question, *_ in items],
                tags=[{"is_prompt": True, "status": "finished", "global_steps": global_steps} for _ in items],
                partition_id=partition,
            )

    def _fields(self, rows: list[tuple], validate: bool) -> TensorDict:
        """The columns that verl's trainer and workers read, and no more: workers fetch all of them."""
        prompts = [torch.tensor(prompt) for _, prompt, *_ in rows]
        responses = [torch.from_numpy(rollout.token_ids) for *_, rollout, _ in rows]
        fields = {
            "prompts": _jagged(prompts),
            "responses": _jagged(responses),
            "rm_scores": _jagged(
                [_at_end(len(r), score["score"]) for r, (*_, score) in zip(responses, rows, strict=True)]
            ),
            "num_turns": torch.full((len(rows),), 2),
            "uid": NonTensorStack(*[question["uid"] for question, *_ in rows]),
            "extra_fields": NonTensorStack(*[{"reward_extra_info": score} for *_, score in rows]),
        }
        if not validate:
            input_ids = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
            fields["input_ids"] = _jagged(input_ids)
            fields["position_ids"] = _jagged([torch.arange(len(ids)) for ids in input_ids])
            fields["response_mask"] = fields["loss_mask"] = _jagged([torch.ones_like(r) for r in responses])
            if self._rollout.calculate_log_probs:
                fields["rollout_log_probs"] = _jagged([torch.from_numpy(rollout.log_probs) for *_, rollout, _ in rows])
        if validate or self._keep_ground_truth:
            fields["reward_model"] = NonTensorStack(*[question["reward_model"] for question, *_ in rows])
            fields["data_source"] = NonTensorStack(*[question["data_source"] for question, *_ in rows])
        return TensorDict(fields, batch_size=[len(rows)])


def _rows(question: dict, prompt: list[int], group: Group, scores: list[dict]):
    for k, (rollout, score) in enumerate(zip(group.rollouts, scores, strict=True)):
        yield question, prompt, group, k, rollout, score


def _tag(prompt: list[int], rollout: Rollout, group: Group, global_steps: int) -> dict[str, Any]:
    return {
        "status": "success",
        "prompt_len": len(prompt),
        "response_len": len(rollout.token_ids),
        "seq_len": len(prompt) + len(rollout.token_ids),
        "global_steps": global_steps,
        "min_global_steps": group.global_steps,
        "max_global_steps": group.global_steps,
    }


def _jagged(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def _at_end(length: int, value: float) -> torch.Tensor:
    """[length] float32, zero but for the last token."""
    scores = torch.zeros(length, dtype=torch.float32)
    scores[-1] = value
    return scores
