"""Answers of one prompt that begin in different ways, and rows that are trained on under another prompt."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.rewards.function import RewardFunction
from verl_relift.rollout.groups import draw_of
from verl_relift.rollout.server import SampledGroup, SampledResponse
from verl_relift.rollout.worker import RolloutWorker
from verl_relift.types import Prompt, Question, Role

TOKENIZER = build_tokenizer()
END = TOKENIZER.eos_token_id


class Server:
    """Answers every request with the number of the answer, last request first."""

    def __init__(self):
        self.requests = []
        self.generate_groups = SimpleNamespace(remote=self._answer)

    async def _answer(self, requests, sampling, request_id):
        self.requests = requests
        for index in reversed(range(len(requests))):
            answers = [
                SampledResponse(np.array([*TOKENIZER.encode(str(k)), END]), np.full(2, -1.0, np.float32), False)
                for k in range(requests[index].samples)
            ]
            yield self._done(SampledGroup(index, answers, 7))

    async def _done(self, group):
        return group


def stored(prompts: list[Prompt], n: int) -> tuple[Server, dict]:
    """Ask prompts of a server; returns it, and what is stored of each group by draw: (group, rows)."""
    worker = object.__new__(RolloutWorker)
    worker._rollout = SimpleNamespace(
        n=n, prompt_length=64, response_length=64, temperature=1.0, top_p=1.0, top_k=-1, calculate_log_probs=True
    )
    worker._template_kwargs, worker._keep_ground_truth, worker._with_roles = {}, False, True
    worker._tokenizer, worker._seed, worker._reward = TOKENIZER, 1, RewardFunction()
    server, queue = Server(), asyncio.Queue()

    async def ask():
        ids = [worker._encode(prompt.messages) for prompt in prompts]
        await worker._ask(server, prompts, ids, 3, False, queue)
        return [queue.get_nowait() for _ in prompts]

    groups = asyncio.run(ask())
    return server, {g.group.question.draw: (g, worker._fields([g], False)) for g in groups}


def prompt(text: str, draw: str, **more) -> Prompt:
    messages = ({"role": "user", "content": text},)
    question = Question(f"q{draw}", draw, messages, "1")
    return Prompt(question, more.pop("messages", messages), **more)


def lists(column) -> list[list]:
    return [row.tolist() for row in column.unbind()]


def test_some_answers_of_a_group_begin_with_a_head():
    head = (5, 6)
    server, by_draw = stored([prompt("1=?", "0"), prompt("2=?", "1", forced=head, guided=1, own_mean=True)], n=3)
    assert [(r.forced, r.samples) for r in server.requests] == [(0, 3), (0, 2), (2, 1)]
    assert server.requests[2].token_ids == [*server.requests[1].token_ids, *head]
    assert len({request.seed for request in server.requests}) == 3
    group, rows = by_draw["1"]
    assert [rollout.key for rollout in group.group.rollouts] == ["1_0_0", "1_1_0", "1_2_0"]
    assert [rollout.forced for rollout in group.group.rollouts] == [0, 0, 2]
    assert [len(row) for row in lists(rows["responses"])] == [2, 2, 4]
    assert lists(rows["responses"])[2][:2] == list(head)
    assert lists(rows["response_mask"]) == [[1, 1], [1, 1], [0, 0, 1, 1]]
    written = [Role.CONTINUATION] * 2
    assert lists(rows["roles"]) == [[Role.OWN] * 2, [Role.OWN] * 2, [Role.HINT, Role.HINT, *written]]
    assert lists(rows["rollout_log_probs"])[2] == [0.0, 0.0, -1.0, -1.0]
    # The mean of the others is without the guided answer.
    assert list(rows["uid"]) == ["1", "1", "1-guided"] and {draw_of(r.key) for r in group.group.rollouts} == {"1"}
    tag = group.tag(group.group.rollouts[2], 3)
    assert (tag["forced"], tag["truncated"], tag["response_len"]) == (2, False, 4)


def test_all_answers_of_a_group_share_their_head_and_their_mean():
    server, by_draw = stored([prompt("1=?", "0", forced=(5, 6, 7))], n=2)
    assert [(r.forced, r.samples) for r in server.requests] == [(3, 2)]
    _, rows = by_draw["0"]
    assert list(rows["uid"]) == ["0", "0"] and [len(row) for row in lists(rows["responses"])] == [5, 5]


def test_an_empty_head_is_no_guidance():
    bare, _ = stored([prompt("1=?", "0")], n=4)
    server, by_draw = stored([prompt("1=?", "0", forced=(), guided=2, own_mean=True)], n=4)
    assert server.requests == bare.requests
    assert list(by_draw["0"][1]["uid"]) == ["0"] * 4


@pytest.mark.parametrize("bare", [True, False])
def test_a_hinted_answer_is_trained_on_under_the_prompt_that_is_named(bare):
    hinted = ({"role": "user", "content": "1=?0+1"},)
    asked = prompt("1=?", "0", messages=hinted)
    if bare:
        asked = prompt("1=?", "0", messages=hinted, trained_under=asked.question.messages)
    server, by_draw = stored([asked], n=1)
    group, rows = by_draw["0"]
    sampled, question = (
        TOKENIZER.apply_chat_template(list(m), add_generation_prompt=True, tokenize=True, return_dict=False)
        for m in (hinted, asked.question.messages)
    )
    assert server.requests[0].token_ids == sampled != question
    trained = question if bare else sampled
    assert lists(rows["prompts"]) == [trained] and group.tag(group.group.rollouts[0], 3)["prompt_len"] == len(trained)
    assert lists(rows["input_ids"]) == [[*trained, *lists(rows["responses"])[0]]]
    assert lists(rows["roles"]) == [[Role.CONTINUATION] * 2]


def test_the_number_of_answers_of_a_prompt_is_its_own():
    server, by_draw = stored([prompt("1=?", "0", samples=5, forced=(5,), guided=9)], n=2)
    assert [(r.forced, r.samples) for r in server.requests] == [(1, 5)]
    assert len(by_draw["0"][0].group.rollouts) == 5
