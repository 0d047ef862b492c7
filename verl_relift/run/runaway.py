"""Says when responses or the policy's entropy run away: the usual signs of a collapse that rewards show late."""

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

# Steps from which a run's usual values are taken.
REFERENCE_STEPS = 10
# A value this many times the usual one, or this small a fraction of it, is said; then its double, and so on.
FACTOR = 3.0

_WATCHED = {
    "response_length/mean": "responses have {value:.0f} tokens on average",
    "actor/entropy": "the policy's entropy is {value:.3g} nats",
}


class Runaway:
    """Compares metrics of a run's steps with those of its first ones, also of steps before a resume."""

    def __init__(self):
        self._first: dict[str, list[float]] = {name: [] for name in _WATCHED}
        self._said = {name: FACTOR for name in _WATCHED}  # the factor that is said next

    def lines(self, metrics: Mapping[str, Any], step: int) -> Iterator[str]:
        """Yield a line for each metric that has run away further than has been said.

        Args:
            metrics: of a step, with verl's names.
            step: its number.
        """
        for name, text in _WATCHED.items():
            value, first = metrics.get(name), self._first[name]
            if value is None:
                continue
            if len(first) < REFERENCE_STEPS:
                first.append(float(value))
                continue
            usual = fmean(first)
            factor = max(value / usual, usual / value) if value > 0.0 and usual > 0.0 else 1.0
            if factor >= self._said[name]:
                self._said[name] = 2.0 * float(factor)
                yield (
                    f"step {step}: {text.format(value=value)}, {usual:.3g} in the first {REFERENCE_STEPS} steps "
                    f"({name}); look at rollouts before you train on"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return the usual values and what has been said, as plain JSON types."""
        return {"first": self._first, "said": self._said}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo `state_dict`. A metric that it does not have starts without usual values."""
        for name in _WATCHED:
            self._first[name] = list(state["first"].get(name, ()))
            self._said[name] = state["said"].get(name, FACTOR)
