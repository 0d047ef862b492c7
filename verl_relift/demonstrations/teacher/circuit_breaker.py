"""When a request may be sent: rarely if the server is down, and after a pause if the server asks for one."""

import asyncio
import random
import time

from .client import RequestFailed

FAILURES = 5  # this many in a row open the circuit breaker
FIRST_COOLDOWN = 2.0  # seconds from opening to the first probe; doubled with every probe that fails
LONGEST_COOLDOWN = 120.0
LONGEST_PAUSE = 600.0  # seconds; while a server asks for more, requests fail

FIRST_BACKOFF = 1.0  # seconds
LONGEST_BACKOFF = 60.0


def backoff(retry: int) -> float:
    """Return the seconds to wait before the `retry`-th retry (from 0).

    The delay doubles with each retry, less a random part of up to half of it, so that requests spread out.
    """
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**retry) * random.uniform(0.5, 1.0)


class CircuitBreaker:
    """A circuit breaker, for one event loop.

    After `FAILURES` failures in a row it is open: requests fail with the last failure without being sent. Only one
    probe at a time is sent after a cooldown. The first request that is answered closes the circuit breaker.
    """

    def __init__(self):
        self._failures = 0
        self._fault: RequestFailed | None = None
        self._cooldown = FIRST_COOLDOWN
        self._probe_at = 0.0
        self._probing = False
        self._paused_until = 0.0

    @property
    def open(self) -> bool:
        """Whether requests are held back."""
        return self._failures >= FAILURES

    async def admit(self) -> bool:
        """Wait until a request may be sent.

        Returns:
            Whether the request is the probe; the caller passes this on to `failed` and calls `probe_ended` if it is.

        Raises:
            RequestFailed: the request may not be sent.
        """
        while (pause := self._paused_until - time.monotonic()) > 0:
            if pause > LONGEST_PAUSE:
                raise self._unsent()
            await asyncio.sleep(pause * random.uniform(1.0, 1.1))
        if not self.open:
            return False
        if self._probing or time.monotonic() < self._probe_at:
            raise self._unsent()
        self._probing = True
        return True

    def answered(self) -> None:
        """Record that the server answered, whatever it said."""
        self._failures = 0
        self._cooldown = FIRST_COOLDOWN

    def failed(self, fault: RequestFailed, probe: bool) -> None:
        """Record a failure. One that does not concern the server itself counts as an answer.

        Args:
            fault: why the request failed.
            probe: whether the request was the probe.
        """
        if fault.retry_after:
            self._paused_until = max(self._paused_until, time.monotonic() + fault.retry_after)
            self._fault = fault
        if not fault.server_down:
            self.answered()
            return
        self._failures += 1
        self._fault = fault
        if self._failures == FAILURES or probe:
            self._probe_at = time.monotonic() + self._cooldown
            self._cooldown = min(LONGEST_COOLDOWN, 2 * self._cooldown)

    def probe_ended(self) -> None:
        """Record that the probe is over, answered or not, so that another may follow."""
        self._probing = False

    def _unsent(self) -> RequestFailed:
        fault = self._fault
        return RequestFailed(f"not sent, after: {fault}", fault.failure, retry=fault.retry, server_down=True)
