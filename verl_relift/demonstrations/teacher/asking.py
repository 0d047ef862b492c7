"""From a question to an answer: samples are requested one after another until one verifies."""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence

from ...data.chat import opens_thought, without_repetition
from ...rewards.function import Answer, RewardFunction
from ...settings import TeacherSettings
from .budget import Amount, Budget, BudgetSpent
from .cache import Cache, request_of
from .circuit_breaker import CircuitBreaker, backoff
from .client import Client, Reply, RequestFailed
from .question import Failure, TeacherAnswer, TeacherQuestion

logger = logging.getLogger(__name__)

_LOG_INTERVAL = 60.0  # seconds between two log lines about the same kind of failure
_LATENCIES = 100  # number of requests over which the latency is averaged


def messages_of(settings: TeacherSettings, messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the messages to send: the question's, with `system_prompt` in place of its system message if it is set."""
    rest = [dict(message) for message in messages]
    if settings.system_prompt is None:
        return rest
    system = {"role": "system", "content": settings.system_prompt}
    return [system, *(message for message in rest if message["role"] != "system")]


class Asker:
    """Answers any number of questions on one event loop, with `settings.concurrency` requests in flight.

    Attributes:
        cache_hits: replies taken from the cache.
        requests: requests sent.
        latencies: seconds of the last answered requests.
    """

    def __init__(self, settings: TeacherSettings, client: Client, cache: Cache, budget: Budget, reward: RewardFunction):
        self._settings = settings
        self._reward = reward
        self._client = client
        self._cache = cache
        self._budget = budget
        self._circuit_breaker = CircuitBreaker()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._logged: dict[Failure, float] = {}
        self._unlogged: Counter[Failure] = Counter()
        self.cache_hits = 0
        self.requests = 0
        self.latencies: deque[float] = deque(maxlen=_LATENCIES)

    async def answer(self, question: TeacherQuestion) -> TeacherAnswer:
        """Request samples until one verifies, or report why none did."""
        messages = messages_of(self._settings, question.messages)
        # Greedy samples are all equal.
        samples = self._settings.samples if self._settings.temperature > 0 else 1
        seen: Counter[Failure] = Counter()
        for sample in range(samples):
            try:
                reply = await self._sample(messages, sample)
            except BudgetSpent:
                return TeacherAnswer(question, None, Failure.BUDGET)
            except RequestFailed as fault:
                return TeacherAnswer(question, None, fault.failure)
            failure = await self._verify(reply, question)
            if failure is None:
                return TeacherAnswer(question, reply.text, None)
            seen[failure] += 1
        return TeacherAnswer(question, None, seen.most_common(1)[0][0])

    async def _verify(self, reply: Reply, question: TeacherQuestion) -> Failure | None:
        if reply.truncated:
            return Failure.TRUNCATED
        start = question.answer_start
        score = await self._reward.score(
            Answer(
                without_repetition(reply.text, start),
                question.ground_truth,
                question.data_source,
                question.extra_info,
                opens_thought(start),
            )
        )
        if score.unverifiable:
            return Failure.UNVERIFIABLE
        return None if score.right else Failure.WRONG

    async def _sample(self, messages: list[dict[str, str]], sample: int) -> Reply:
        request = request_of(self._settings, messages, sample)
        reply = self._cache.get(request)
        if reply is not None:
            self.cache_hits += 1
            return reply
        reply = await self._request(messages)
        self._cache.put(request, reply)
        return reply

    async def _request(self, messages: list[dict[str, str]]) -> Reply:
        """Request one sample from the server, with retries.

        Raises:
            BudgetSpent: the budget cannot pay for the request.
            RequestFailed: the last try failed.
        """
        amount = self._budget.most(messages)
        for retry in range(self._settings.max_retries + 1):
            try:
                return await self._try(messages, amount)
            except RequestFailed as fault:
                self._log(fault)
                if not fault.retry or retry == self._settings.max_retries:
                    raise
                # The slot is free during the backoff, because requests for other questions may succeed.
                await asyncio.sleep(backoff(retry))
        raise AssertionError("unreachable")

    async def _try(self, messages: list[dict[str, str]], amount: Amount) -> Reply:
        async with self._slots:
            await self._budget.reserve(amount)
            try:
                probe = await self._circuit_breaker.admit()
            except BaseException:
                await self._budget.release(amount)
                raise
            self.requests += 1
            start = time.monotonic()
            try:
                reply = await self._client.complete(messages)
            except RequestFailed as fault:
                self._circuit_breaker.failed(fault, probe)
                await (self._budget.settle(amount, None) if fault.may_be_paid else self._budget.release(amount))
                raise
            finally:
                if probe:
                    self._circuit_breaker.probe_ended()
            self._circuit_breaker.answered()
            self.latencies.append(time.monotonic() - start)
            await self._budget.settle(amount, reply.usage)
            return reply

    def _log(self, fault: RequestFailed) -> None:
        """Log one line a minute for each kind of failure."""
        now = time.monotonic()
        if now - self._logged.get(fault.failure, -_LOG_INTERVAL) < _LOG_INTERVAL:
            self._unlogged[fault.failure] += 1
            return
        self._logged[fault.failure] = now
        more = self._unlogged.pop(fault.failure, 0)
        suffix = f"; {more} more of this kind since the last log line" if more else ""
        logger.warning("teacher %s: %s: %s%s", self._client.address, fault.failure, fault, suffix)
