"""From a batch of prompts to graded rollouts in TransferQueue.

verl's replay buffer relies on an order of events: a group's rollouts are stored, then its question is marked
`finished`.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import NonTensorStack, TensorDict

from ..data.chat import answer_start, opens_thought
from ..rewards import verl_hook
from ..rewards.function import Answer
from ..rewards.problems import has_own_function
from ..types import GradedRollout, Group, Prompt, Role
from .prompts import prompt_token_ids
from .reward import load_reward_function
from .server import SampledGroup, SampledResponse, SampleRequest

# Rollouts of one write, unless fewer are left: what TransferQueue does for a write and its columns costs as much as
# hundreds of rows.
WRITE_ROWS = 512


class RolloutWorker:
    """Answers prompts through the vLLM servers, grades the answers, stores both."""

    def __init__(self, config: DictConfig, servers: list, tokenizer, seed: int | None, with_roles: bool = False):
        """
        Args:
            config: the whole configuration.
            servers: Ray handles of `GroupServer`.
            tokenizer: of the policy.
            seed: makes sampling a function of (seed, step, prompt); None leaves it to the engine.
            with_roles: whether training rows say who wrote each token (`Role`).
        """
        self._rollout = config.actor_rollout_ref.rollout
        self._template_kwargs = dict(config.data.get("apply_chat_template_kwargs", {}))
        self._keep_ground_truth = bool(config.trainer.get("rollout_data_dir"))
        self._servers = servers
        self._tokenizer = tokenizer
        self._seed = seed
        self._with_roles = with_roles
        self._reward = load_reward_function(config)
        if not has_own_function(config):
            verl_hook.start_judge(**config.reward.custom_reward_function.get("reward_kwargs", {}))

    async def generate(self, prompts: Sequence[Prompt], global_steps: int, validate: bool) -> None:
        """Answer `prompts` and return when all their rollouts are graded and stored."""
        token_ids = [self._encode(prompt.messages) for prompt in prompts]
        stored: asyncio.Queue[_StoredGroup] = asyncio.Queue()
        writer = asyncio.create_task(self._store(stored, len(prompts), global_steps, validate))
        shares = [range(i, len(prompts), len(self._servers)) for i in range(len(self._servers))]
        asked = [
            self._ask(
                server, [prompts[i] for i in share], [token_ids[i] for i in share], global_steps, validate, stored
            )
            for server, share in zip(self._servers, shares, strict=True)
            if share
        ]
        try:
            await asyncio.gather(*asked)
            await writer
        finally:
            writer.cancel()  # it would wait forever for the answers of a server that died

    def _encode(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return a chat's token ids, without the forced head of the answer."""
        return prompt_token_ids(self._tokenizer, messages, self._template_kwargs, self._rollout.prompt_length)

    def _sampling(self, validate: bool) -> dict[str, Any]:
        source = self._rollout.val_kwargs if validate else self._rollout
        return {
            "temperature": source.temperature,
            "top_p": source.top_p,
            "top_k": source.top_k,
            "max_tokens": self._rollout.response_length,
            "logprobs": self._rollout.calculate_log_probs and not validate,
        }

    def _seed_of(self, prompt: Prompt, token_ids: list[int], global_steps: int) -> int | None:
        """Return 63 bits from (seed, step, attempt, copy, input ids): the same on any server and after a resume."""
        if self._seed is None:
            return None
        step = f"{global_steps}.{prompt.attempt}" if prompt.attempt else f"{global_steps}"
        copy = f"/{prompt.copy}" if prompt.copy else ""
        text = f"{self._seed}/{step}{copy}/{','.join(map(str, token_ids))}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    async def _ask(
        self,
        server,
        prompts: Sequence[Prompt],
        token_ids: Sequence[list[int]],
        global_steps: int,
        validate: bool,
        stored: "asyncio.Queue[_StoredGroup]",
    ) -> None:
        n = self._rollout.val_kwargs.n if validate else self._rollout.n
        parts = [prompt.parts(n) for prompt in prompts]
        places, requests = [], []  # which part of which prompt a request is
        for place, (prompt, ids) in enumerate(zip(prompts, token_ids, strict=True)):
            for part, (head, samples) in enumerate(parts[place]):
                inputs = [*ids, *head]
                seed = self._seed_of(prompt, inputs, global_steps)
                requests.append(SampleRequest(inputs, len(head), samples, seed))
                places.append((place, part))
        groups = server.generate_groups.remote(requests, self._sampling(validate), uuid4().hex)
        grading = []
        answered: list[dict[int, SampledGroup]] = [{} for _ in prompts]
        async for reference in groups:
            sampled: SampledGroup = await reference
            place, part = places[sampled.index]
            answered[place][part] = sampled
            if len(answered[place]) == len(parts[place]):
                heads = [head for head, _ in parts[place]]
                of_prompt = [answered[place][part] for part in range(len(heads))]
                work = self._grade(prompts[place], token_ids[place], heads, of_prompt, stored)
                grading.append(asyncio.create_task(work))
        await asyncio.gather(*grading)

    async def _grade(
        self,
        prompt: Prompt,
        token_ids: list[int],
        heads: Sequence[tuple[int, ...]],
        sampled: Sequence[SampledGroup],
        stored: "asyncio.Queue[_StoredGroup]",
    ) -> None:
        """Grade the answers to a prompt, which come in one part per head."""
        for part in sampled:
            if part.error is not None:
                raise RuntimeError(f"vLLM could not answer question {prompt.question.draw}: {part.error}")
        in_thought = opens_thought(answer_start(self._tokenizer, token_ids, prompt.messages))
        answers = [(head, response) for head, part in zip(heads, sampled, strict=True) for response in part.responses]
        rollouts = await asyncio.gather(
            *[self._grade_one(prompt, in_thought, k, head, response) for k, (head, response) in enumerate(answers)]
        )
        trained_under = token_ids if prompt.trained_under is None else self._encode(prompt.trained_under)
        group = Group(prompt, tuple(rollouts))
        await stored.put(_StoredGroup(group, trained_under, sampled[0].global_steps))

    async def _grade_one(
        self, prompt: Prompt, in_thought: bool, session: int, head: tuple[int, ...], response: SampledResponse
    ) -> GradedRollout:
        token_ids, log_probs = _with_head(head, response)
        question = prompt.question
        score = await self._reward.score(
            Answer(
                text=self._tokenizer.decode(token_ids, skip_special_tokens=True),
                ground_truth=question.ground_truth,
                data_source=question.data_source,
                extra_info=question.extra_info,
                in_thought=in_thought,
            )
        )
        return GradedRollout(
            key=f"{question.draw}_{session}_0",
            reward=score.reward,
            accuracy=score.accuracy,
            info=score.info,
            tokens=len(token_ids),
            token_ids=token_ids,
            log_probs=log_probs,
            truncated=response.truncated,
            forced=len(head),
        )

    async def _store(
        self, stored: "asyncio.Queue[_StoredGroup]", count: int, global_steps: int, validate: bool
    ) -> None:
        """Write groups as they come, WRITE_ROWS rollouts or more at a time."""
        partition = "val" if validate else "train"
        done = 0
        while done < count:
            groups: list[_StoredGroup] = []
            waiting = 0
            while done < count and (waiting < WRITE_ROWS or not stored.empty()):
                groups.append(await stored.get())
                waiting += len(groups[-1].group.rollouts)
                done += 1
            await tq.async_kv_batch_put(
                keys=[rollout.key for group in groups for rollout in group.group.rollouts],
                fields=self._fields(groups, validate),
                tags=[group.tag(rollout, global_steps) for group in groups for rollout in group.group.rollouts],
                partition_id=partition,
            )
            await tq.async_kv_batch_put(
                keys=[group.group.question.draw for group in groups],
                tags=[{"is_prompt": True, "status": "finished", "global_steps": global_steps} for _ in groups],
                partition_id=partition,
            )

    def _fields(self, groups: "Sequence[_StoredGroup]", validate: bool) -> TensorDict:
        """Return the columns that verl's trainer and workers read, and no more: workers fetch all of them."""
        rows = [(group, rollout) for group in groups for rollout in group.group.rollouts]
        questions = [group.group.question for group, _ in rows]
        rollouts = [rollout for _, rollout in rows]
        prompts = [torch.tensor(group.token_ids) for group, _ in rows]
        responses = [torch.from_numpy(rollout.token_ids) for rollout in rollouts]
        fields = {
            "prompts": _jagged(prompts),
            "responses": _jagged(responses),
            "rm_scores": _jagged([_at_end(rollout.tokens, rollout.reward) for rollout in rollouts]),
            "num_turns": torch.full((len(rows),), 2),
            "uid": NonTensorStack(*[_compared_with(group.group, rollout) for group, rollout in rows]),
            "extra_fields": NonTensorStack(*[{"reward_extra_info": rollout.info} for rollout in rollouts]),
        }
        if not validate:
            input_ids = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
            fields["input_ids"] = _jagged(input_ids)
            fields["position_ids"] = _jagged([torch.arange(len(ids)) for ids in input_ids])
            # The policy update trains on what the policy wrote.
            masks = [_after(rollout.forced, response) for rollout, response in zip(rollouts, responses, strict=True)]
            fields["response_mask"] = fields["loss_mask"] = _jagged(masks)
            if self._with_roles:
                writers = [_writer(group.group.prompt, rollout) for group, rollout in rows]
                fields["roles"] = _jagged([_roles(writer, mask) for writer, mask in zip(writers, masks, strict=True)])
            if self._rollout.calculate_log_probs:
                fields["rollout_log_probs"] = _jagged([torch.from_numpy(rollout.log_probs) for rollout in rollouts])
        if validate or self._keep_ground_truth:
            fields["reward_model"] = NonTensorStack(*[{"ground_truth": q.ground_truth} for q in questions])
            fields["data_source"] = NonTensorStack(*[question.data_source for question in questions])
        return TensorDict(fields, batch_size=[len(rows)])


@dataclass(frozen=True)
class _StoredGroup:
    """A graded group on its way into TransferQueue."""

    group: Group
    token_ids: list[int]  # of the prompt that the loss conditions on
    weights_version: int | None  # the step whose weights sampled it

    def tag(self, rollout: GradedRollout, global_steps: int) -> dict[str, Any]:
        """Return what verl's trainer reads of a row without fetching it."""
        return {
            "status": "success",
            "prompt_len": len(self.token_ids),
            "response_len": rollout.tokens,
            "forced": rollout.forced,
            "truncated": rollout.truncated,
            "seq_len": len(self.token_ids) + rollout.tokens,
            "global_steps": global_steps,
            "min_global_steps": self.weights_version,
            "max_global_steps": self.weights_version,
        }


def _with_head(forced: tuple[int, ...], response: SampledResponse) -> tuple[np.ndarray, np.ndarray | None]:
    """Return token ids and log-probabilities of a response behind its forced head, which was not sampled: 0 there."""
    if not forced:
        return response.token_ids, response.log_probs
    token_ids = np.concatenate([np.asarray(forced, dtype=np.int64), response.token_ids])
    if response.log_probs is None:
        return token_ids, None
    return token_ids, np.concatenate([np.zeros(len(forced), dtype=np.float32), response.log_probs])


def _jagged(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def _after(head: int, response: torch.Tensor) -> torch.Tensor:
    """Return [tokens] int64: 1 but for the first `head` tokens."""
    mask = torch.ones_like(response)
    mask[:head] = 0
    return mask


def _writer(prompt: Prompt, rollout: GradedRollout) -> Role:
    """Return the role of what the policy wrote."""
    guided = rollout.forced or prompt.messages != prompt.question.messages
    return Role.CONTINUATION if guided else Role.OWN


def _roles(writer: Role, mask: torch.Tensor) -> torch.Tensor:
    """Return the role of each token, [tokens] int64: what the policy did not write is the head of an answer."""
    return torch.where(mask.bool(), int(writer), int(Role.HINT))


def _compared_with(group: Group, rollout: GradedRollout) -> str:
    """Return the name of the rollouts whose mean is the baseline of this one."""
    apart = group.prompt.own_mean and rollout.forced
    return f"{group.question.draw}-guided" if apart else group.question.draw


def _at_end(length: int, value: float) -> torch.Tensor:
    """Return [length] float32, zero but for the last token."""
    scores = torch.zeros(length, dtype=torch.float32)
    scores[-1] = value
    return scores
