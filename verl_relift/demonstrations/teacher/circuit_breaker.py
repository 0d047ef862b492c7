"""When a request may be sent: a server that is down is left alone, one that asks for a pause gets it."""

import asyncio
import random
import time

from .client import RequestFailed

FAILURES = 5  # in a row open the breaker
FIRST_COOLDOWN = 2.0  # seconds from opening to the first probe; doubled with every probe that fails
LONGEST_COOLDOWN = 120.0
LONGEST_PAUSE = 600.0  # seconds; a server that asks for more counts as unreachable

FIRST_BACKOFF = 1.0  # seconds
LONGEST_BACKOFF = 60.0


def backoff(retry: int) -> float:
    """Seconds before the ``retry``-th retry (from 0): doubling, less up to half of it so that requests spread."""
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**retry) * random.uniform(0.5, 1.0)


class Breaker:
    """A circuit breaker, for one event loop.

    After `FAILURES` failures in a row it is open: requests end with the last failure, unsent, except one probe at a
    time after a cooldown. The first request that is answered closes it.
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
        """Return when a request may be sent: whether it is the probe, which the caller passes on.

        Raises:
            RequestFailed: it may not.
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
        """The server is there, whatever it said."""
        self._failures = 0
        self._cooldown = FIRST_COOLDOWN

    def failed(self, fault: RequestFailed, probe: bool) -> None:
        """Count a failure; one that is not about the server counts as an answer."""
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
        """The probe is over, answered or not; another may follow."""
        self._probing = False

    def _unsent(self) -> RequestFailed:
        fault = self._fault
        return RequestFailed(f"not sent, after: {fault}", fault.failure, retry=fault.retry, server_down=True)
