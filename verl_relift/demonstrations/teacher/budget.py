"""Tokens and cost of a run: reserved at their most before a request, settled by what the server reports."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...settings import TeacherSettings
from .client import Usage

# A chat template adds a few tokens to each message, and some add a system prompt of their own.
_TEMPLATE_TOKENS = 64
_MESSAGE_TOKENS = 16


class BudgetSpent(Exception):
    """What is left cannot pay for the request."""


@dataclass(frozen=True)
class Amount:
    """Tokens, and cost in the unit of the prices."""

    tokens: int
    cost: float


class Budget:
    """What a run has spent, against ``budget_tokens`` and ``budget_cost``.

    For one event loop; :meth:`affords` and the counts may be read from any thread. A request that the server may have
    answered but for which it reported no usage counts at its most, as ``unreported_tokens``.
    """

    def __init__(self, settings: TeacherSettings):
        self._settings = settings
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.unreported_tokens = 0
        self.cost = 0.0
        self._reserved: list[Amount] = []
        self._changed = asyncio.Condition()

    @property
    def tokens(self) -> int:
        """All tokens spent."""
        return self.prompt_tokens + self.completion_tokens + self.unreported_tokens

    def most(self, messages: Sequence[dict[str, str]]) -> Amount:
        """The most that one sample can take: a byte of the prompt is at most a token, and max_tokens bound the rest."""
        prompt = _TEMPLATE_TOKENS + sum(_MESSAGE_TOKENS + len(m["content"].encode()) for m in messages)
        return Amount(prompt + self._settings.max_tokens, self._cost(prompt, self._settings.max_tokens))

    def affords(self, amount: Amount) -> bool:
        """Whether ``amount`` is left when everything in flight turns out to be free."""
        return self._fits(self.tokens + amount.tokens, self.cost + amount.cost)

    async def reserve(self, amount: Amount) -> None:
        """Set ``amount`` aside; waits while only requests in flight stand in the way.

        Raises:
            BudgetSpent: it is not left.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: not self.affords(amount) or self._free(amount))
            if not self.affords(amount):
                raise BudgetSpent
            self._reserved.append(amount)

    async def release(self, amount: Amount) -> None:
        """End a reservation that cost nothing."""
        async with self._changed:
            self._reserved.remove(amount)
            self._changed.notify_all()

    async def settle(self, amount: Amount, usage: Usage | None) -> None:
        """End a reservation with what the server reports, or with all of it where it reports nothing."""
        if usage is None:
            self.unreported_tokens += amount.tokens
            self.cost += amount.cost
        else:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
            self.cost += self._cost(usage.prompt_tokens, usage.completion_tokens)
        await self.release(amount)

    def state_dict(self) -> dict[str, Any]:
        """What is spent, as plain JSON types."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "unreported_tokens": self.unreported_tokens,
            "cost": self.cost,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state_dict`."""
        self.prompt_tokens = state["prompt_tokens"]
        self.completion_tokens = state["completion_tokens"]
        self.unreported_tokens = state["unreported_tokens"]
        self.cost = state["cost"]

    def _free(self, amount: Amount) -> bool:
        taken = [*self._reserved, amount]
        return self._fits(self.tokens + sum(a.tokens for a in taken), self.cost + sum(a.cost for a in taken))

    def _fits(self, tokens: int, cost: float) -> bool:
        limits = self._settings.budget_tokens, self._settings.budget_cost
        return all(limit is None or value <= limit for value, limit in zip((tokens, cost), limits, strict=True))

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self._settings.price_input + completion_tokens * self._settings.price_output) / 1e6
