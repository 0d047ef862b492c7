"""Shares a batch of prompts out among rollout workers, in this process or in Ray actors.

With `relift.rollout.workers=0` the worker runs in a thread of the trainer's process: nothing to start, nothing to
serialize, right for one node. With N > 0 there are N Ray actors, spread over the nodes.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace

import ray
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict

from ..types import Prompt
from .questions import questions_of
from .worker import RolloutWorker

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 15.0


@ray.remote
class _RolloutActor(RolloutWorker):
    def __init__(self, *args):
        super().__init__(*args)
        tq.init()


class RolloutManager:
    """The agent loop manager of verl's trainer, for single-turn questions."""

    def __init__(self, config: DictConfig, servers: list, tokenizer, seed: int | None, with_roles: bool = False):
        """Takes the arguments of `RolloutWorker`."""
        count = config.relift.rollout.workers
        arguments = (config, servers, tokenizer, seed, with_roles)
        self._pending: list[Future | ray.ObjectRef] = []
        self._counted: tuple[int, bool] | None = None  # what `_copies` counts: a step, and whether it is a validation
        self._copies: Counter[Hashable] = Counter()  # of each prompt
        self._local = RolloutWorker(*arguments) if count == 0 else None
        self._actors = [_RolloutActor.options(scheduling_strategy="SPREAD").remote(*arguments) for _ in range(count)]
        if self._local is not None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="rollouts", daemon=True)
            self._thread.start()

    def generate(self, prompts: Sequence[Prompt], global_steps: int, validate: bool = False) -> None:
        """Start answering `prompts` and return; the rollouts appear in TransferQueue as groups finish."""
        prompts = self._numbered(prompts, (global_steps, validate))
        if self._local is not None:
            work = self._local.generate(prompts, global_steps, validate)
            self._pending.append(asyncio.run_coroutine_threadsafe(work, self._loop))
        for i, actor in enumerate(self._actors):
            share = prompts[i :: len(self._actors)]
            if share:
                self._pending.append(actor.generate.remote(share, global_steps, validate))

    def _numbered(self, prompts: Sequence[Prompt], counted: tuple[int, bool]) -> list[Prompt]:
        """Return the prompts with their places among equal ones of the step, which may come in several calls."""
        if counted != self._counted:
            self._counted, self._copies = counted, Counter()
        numbered = []
        for prompt in prompts:
            # A template may cut white space off.
            chat = tuple((message["role"], str(message["content"]).strip()) for message in prompt.messages)
            # Answers without the head are alike whatever the head.
            key = (chat, prompt.forced if prompt.guided is None else (), prompt.attempt)
            numbered.append(replace(prompt, copy=self._copies[key]))
            self._copies[key] += 1
        return numbered

    def generate_sequences(self, batch: TensorDict) -> None:
        """Start answering the questions of `batch` as they are; verl's trainer validates so.

        Args:
            batch: rows of the data set with `uid` and `raw_prompt`, and the non-tensor entries `global_steps`
                and, for validation, `validate`.
        """
        validate = bool(batch["validate"]) if "validate" in batch else False
        self.generate([Prompt.bare(question) for question in questions_of(batch)], int(batch["global_steps"]), validate)

    def wait_for_batch(self, seconds: float) -> bool:
        """Wait until the running batch is stored, a worker has failed, or `seconds` have passed.

        The replay buffer waits for questions to finish; those of a dead worker never do.

        Returns:
            Whether there was something to wait for.

        Raises:
            Exception: what ended a worker.
        """
        running, self._pending = self._pending, []
        if self._local is not None:
            done, left = wait(running, timeout=seconds, return_when=FIRST_COMPLETED)
        else:
            done, left = ray.wait(running, timeout=seconds) if running else ([], [])
        self._pending = list(left)
        for work in done:
            work.result() if isinstance(work, Future) else ray.get(work)
        return bool(running)

    def close(self) -> None:
        """End what is under way. Python aborts a process that it leaves while a thread runs torch."""
        if self._local is None:
            return
        for work in self._pending:
            work.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SHUTDOWN_SECONDS)


def shut_down(servers: list) -> None:
    """End the vLLM engines behind `servers` cleanly; Ray ends those that do not answer in time."""
    try:
        ray.get([server.shutdown.remote() for server in servers], timeout=SHUTDOWN_SECONDS)
    except (ray.exceptions.RayError, TimeoutError) as error:
        logger.warning("vLLM did not shut down cleanly: %s", error)
