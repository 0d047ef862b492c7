"""Tokens and cost of a run: the maximum is reserved before a request, and the server's report settles it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...settings import TeacherSettings
from .client import Usage

# Upper bounds: a chat template adds a few tokens to each message, and some templates add a system prompt.
_TEMPLATE_TOKENS = 64
_MESSAGE_TOKENS = 16


class BudgetSpent(Exception):
    """The rest of the budget cannot pay for the request."""


@dataclass(frozen=True)
class Amount:
    """What a request takes from the budget.

    Attributes:
        tokens: prompt and completion tokens.
        cost: in the unit of the prices.
    """

    tokens: int
    cost: float


class Budget:
    """What a run has spent, against `budget_tokens` and `budget_cost`.

    A budget belongs to one event loop, but `affords` and the counts may be read from any thread.

    Attributes:
        prompt_tokens: reported by the server.
        completion_tokens: reported by the server.
        unreported_tokens: the reserved maximum of requests that the server may have answered without reporting usage.
        cost: in the unit of the prices.
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
        """All tokens that the run has spent."""
        return self.prompt_tokens + self.completion_tokens + self.unreported_tokens

    def most(self, messages: Sequence[dict[str, str]]) -> Amount:
        """Return the most that one sample can take.

        A token of the prompt has at least one byte, and max_tokens bounds the completion.
        """
        prompt = _TEMPLATE_TOKENS + sum(_MESSAGE_TOKENS + len(m["content"].encode()) for m in messages)
        return Amount(prompt + self._settings.max_tokens, self._cost(prompt, self._settings.max_tokens))

    def affords(self, amount: Amount) -> bool:
        """Return whether the budget can pay `amount` if everything in flight turns out to be free."""
        return self._fits(self.tokens + amount.tokens, self.cost + amount.cost)

    async def reserve(self, amount: Amount) -> None:
        """Reserve `amount`, waiting while only requests in flight prevent it.

        Raises:
            BudgetSpent: the rest of the budget is too small.
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
        """End a reservation and spend what the server reports, or all of the reservation if it reports nothing."""
        if usage is None:
            self.unreported_tokens += amount.tokens
            self.cost += amount.cost
        else:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
            self.cost += self._cost(usage.prompt_tokens, usage.completion_tokens)
        await self.release(amount)

    def state_dict(self) -> dict[str, Any]:
        """Return what is spent, as JSON types."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "unreported_tokens": self.unreported_tokens,
            "cost": self.cost,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
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
