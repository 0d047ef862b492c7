"""How far an evaluation is: tokens generated so far, those of unfinished responses included, and the time that is left.

The time left is that of a simulated rest: responses end as those so far did, running ones included (Kaplan and Meier's
estimate; finished ones alone would be the short ones), and a forward pass takes as long as a line fitted to those so
far says: so much by itself, per sequence, and per token of new prompts.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..run.progress import clock

_BINS = 64  # of the lengths of responses
_PRIOR_ENDINGS = 1.0  # observations that a bin of lengths has before any
_HALF_LIFE = 120.0  # seconds until an observed forward pass counts half for how fast the machine is
_FIXED = 0.3  # of the time of a full forward pass, that of an empty one, before anything is known
_PRIOR_WEIGHT = 0.02  # seconds squared
_FEW_PASSES = 10  # forward passes of an engine that say nothing of its speed yet: the first ones warm up
_WAVES = 5  # as many times the running responses are simulated; what waits beyond them is computed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where an engine is.

    Attributes:
        replica: which engine.
        seconds: since it began to generate.
        passes: forward passes.
        tokens: of all responses, finished or not.
        prompt_tokens: of the prompts that it has computed.
        lengths: tokens of each response that has begun and is not finished.
    """

    replica: int
    seconds: float
    passes: int
    tokens: int
    prompt_tokens: int
    lengths: tuple[int, ...]


class Progress:
    """The progress of an evaluation."""

    def __init__(self, requests: int, prompt_tokens: int, max_tokens: int, concurrent: int):
        """
        Args:
            requests: responses to generate.
            prompt_tokens: of all their prompts.
            max_tokens: length limit of a response.
            concurrent: responses that an engine generates at the same time.
        """
        self._requests, self._mean_prompt = requests, prompt_tokens / max(1, requests)
        self._max_tokens, self._concurrent = max_tokens, concurrent
        self._bin = -(-max_tokens // _BINS)
        self._finished: Counter[int] = Counter()  # responses by their length
        self._last: dict[int, Snapshot] = {}
        # Of what was done (passes, tokens, prompt tokens) in how many seconds: the sums that the fitted line needs, and
        # totals in which the past fades.
        self._products, self._targets = np.zeros((3, 3)), np.zeros(3)
        self._recent, self._recent_seconds = np.zeros(3), 0.0

    def finish(self, tokens: int) -> None:
        """Count a finished response of this many tokens."""
        self._finished[tokens] += 1

    def observe(self, snapshot: Snapshot) -> None:
        """Take note of where an engine is."""
        before = self._last.get(snapshot.replica, Snapshot(snapshot.replica, 0.0, 0, 0, 0, ()))
        self._last[snapshot.replica] = snapshot
        seconds = snapshot.seconds - before.seconds
        done = np.array(
            [
                snapshot.passes - before.passes,
                snapshot.tokens - before.tokens,
                snapshot.prompt_tokens - before.prompt_tokens,
            ],
            dtype=float,
        )
        self._products += np.outer(done, done)
        self._targets += done * seconds
        fading = 0.5 ** (seconds / _HALF_LIFE)
        self._recent = fading * self._recent + done
        self._recent_seconds = fading * self._recent_seconds + seconds

    @property
    def tokens(self) -> int:
        """Tokens generated so far."""
        return sum(one.tokens for one in self._last.values())

    def line(self) -> str:
        """Return the progress in words."""
        seconds = max((one.seconds for one in self._last.values()), default=0.0)
        rate = self.tokens / seconds if seconds else 0.0
        known = "about" if any(length < self._max_tokens for length in self._finished) else "at most"
        began = max((one.passes for one in self._last.values()), default=0) > _FEW_PASSES
        return (
            f"{self._finished.total():,}/{self._requests:,} responses, {self.tokens:,} tokens, {rate:,.0f} tokens/s, "
            + (f"{known} {clock(self.seconds_left())} left" if began else "estimating the time left")
        )

    def seconds_left(self) -> float:
        """Return the seconds that the rest takes; 0 while nothing is known."""
        if not self._last:
            return 0.0
        engines = len(self._last)
        fixed, per_token, per_prompt_token = self._costs()
        stays = self._stays()
        running = np.zeros(len(stays))
        for one in self._last.values():
            for length in one.lengths:
                running[min(length // self._bin, len(stays) - 1)] += 1
        waiting = max(0.0, self._requests - self._finished.total() - running.sum())
        most = engines * self._concurrent
        prompt = self._mean_prompt * per_prompt_token / engines
        beyond = max(0.0, waiting - _WAVES * most)
        mean = self._bin * np.cumprod([1.0, *stays[:-1]]).sum()
        seconds = beyond * (mean * (fixed / most + per_token / engines) + prompt)
        waiting -= beyond
        while True:
            new = min(waiting, max(0.0, most - running.sum()))
            running[0] += new
            waiting -= new
            active = running.sum()
            if active < 0.1:  # the last one has probably ended
                return float(seconds)
            seconds += new * prompt + self._bin * (fixed + per_token * active / engines)
            running = np.array([0.0, *(running * stays)[:-1]])

    def _costs(self) -> np.ndarray:
        """Return the seconds of a forward pass, and beside it of each response and each prompt token in it.

        Where the passes so far were too much alike to tell the three apart, a guess decides.
        """
        passes, tokens, _ = np.maximum(self._recent, 1e-9)
        of_token = (1 - _FIXED) * self._recent_seconds / tokens
        guess = np.array([_FIXED * self._recent_seconds / passes, of_token, of_token / 2])
        weight = np.diag(_PRIOR_WEIGHT / guess**2)
        costs = np.maximum(np.linalg.solve(self._products + weight, self._targets + weight @ guess), 0.0)
        return costs * self._recent_seconds / (costs @ self._recent)

    def _stays(self) -> np.ndarray:
        """Return the probability that a response of each bin of lengths reaches the next one."""
        bins = -(-self._max_tokens // self._bin)
        edges = np.arange(bins) * self._bin
        ended, there = np.zeros(bins), np.zeros(bins)
        for length, count in self._finished.items():
            there += count * (edges < length)
            if length < self._max_tokens:
                ended[max(0, length - 1) // self._bin] += count
        for one in self._last.values():
            for length in one.lengths:
                there += np.clip((length - edges) / self._bin, 0.0, 1.0)
        # What no response has reached yet is as the longest quarter of what is known.
        known = int(np.count_nonzero(there >= 1.0))
        last = slice(3 * known // 4, known)
        tail = ended[last].sum() / max(1.0, there[last].sum())
        return 1.0 - np.minimum((ended + _PRIOR_ENDINGS * tail) / (there + _PRIOR_ENDINGS), 1.0)
