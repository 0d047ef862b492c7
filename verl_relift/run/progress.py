"""How far a run is: one line a step for people."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from . import console

# What the line shows of a step's record, where the record has it: word, metric, format.
_FIELDS = (
    ("reward", "critic/score/mean", "{:.2f}"),
    ("accuracy", "training/accuracy", "{:.2f}"),
    ("hardest", "relift/hardest_questions", "{:.0f}"),
    ("demonstrations", "method/demonstrations_joined", "{:.0f}"),
    ("buffer", "relift/buffer_size", "{:.0f}"),
    ("supervised updates", "relift/sft_updates", "{:.0f}"),
)
_WITHOUT_ROLLOUTS = ("supervised loss", "relift/sft_loss", "{:.3f}")
_VALIDATION = re.compile(r"val-core/(?P<source>.+)/(?P<kind>acc|reward)/mean@\d+")
_VALIDATION_REWARD = re.compile(r"val-(core|aux)/(?P<source>.+)/reward/mean@\d+")
# The stages of a step, by the timer that is there when the stage is over.
_STAGES = (
    ("gen", "generating"),
    ("adv", "preparing the update"),
    ("update_actor", "updating"),
    ("update_actor_sft", "supervised update"),
    ("update_weights", "sending weights"),
)

_RECENT = 10  # steps that the remaining time is estimated from
_LINES = 10  # of a whole run, at least, where the output is no terminal
_MOST_SECONDS = 60.0  # between two lines there, if a step is done
_SILENCE = 60.0  # after which a line says that the run is alive
_TICK = 1.0


def describe(record: Mapping[str, Any], total: int | None, seconds_left: float | None) -> str:
    """Return a step's record in one line.

    Args:
        record: a line of `metrics.jsonl`.
        total: steps of the run.
        seconds_left: estimate of the time that the rest takes.
    """
    return "  ".join(filter(None, (_place(record, total, seconds_left), _values(record))))


def _place(record: Mapping[str, Any], total: int | None, seconds_left: float | None) -> str:
    left = f"  ETA {clock(seconds_left)}" if seconds_left is not None else ""
    return f"step {record['step']}" + (f"/{total}" if total else "") + left


def _values(record: Mapping[str, Any]) -> str:
    fields = _FIELDS if "critic/score/mean" in record else (*_FIELDS, _WITHOUT_ROLLOUTS)
    parts = [f"{word} {form.format(record[name])}" for word, name, form in fields if record.get(name) is not None]
    if validation := validated(record):
        parts.append(f"validation {validation}")
    seconds = record.get("timing_s/step")
    if seconds:
        tokens = record.get("perf/total_num_tokens")
        parts += [f"{tokens / seconds:,.0f} tokens/s"] if tokens else []
        parts.append(f"{seconds:.1f} s/step")
    return "  ".join(parts)


def validation_accuracy(record: Mapping[str, Any]) -> float | None:
    """Return the mean over the sources of a validation; None if the step has none."""
    sources: dict[str, float] = {}
    for name, value in record.items():
        found = _VALIDATION.fullmatch(name)
        if found and value is not None and (found["kind"] == "acc" or found["source"] not in sources):
            sources[found["source"]] = value
    return sum(sources.values()) / len(sources) if sources else None


def validated(record: Mapping[str, Any]) -> str:
    """Return the accuracy of a validation and, where it is another number, the reward; empty if the step has none."""
    accuracy = validation_accuracy(record)
    if accuracy is None:
        return ""
    rewards = {
        found["source"]: value
        for name, value in record.items()
        if (found := _VALIDATION_REWARD.fullmatch(name)) and value is not None
    }
    reward = sum(rewards.values()) / len(rewards) if rewards else accuracy
    return f"{accuracy:.3f}" + (f" (reward {reward:.3f})" if f"{reward:.3f}" != f"{accuracy:.3f}" else "")


def clock(seconds: float) -> str:
    """Return a duration as `m:ss` or `h:mm:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def is_due(step: int, total: int | None, seconds: float) -> bool:
    """Return whether a step gets a line where the output is no terminal.

    Args:
        step: the step that is done.
        total: steps of the run.
        seconds: since the last line.
    """
    tenth = -(-(total or _LINES) // _LINES)
    return step <= 1 or step == total or step % tenth == 0 or seconds >= _MOST_SECONDS


class Pace:
    """Estimates the time that is left from the records of the last steps, validations and checkpoints included."""

    def __init__(self):
        self._times: list[float] = []  # at which steps ended, Unix seconds

    def seconds_left(self, record: Mapping[str, Any], total: int | None) -> float | None:
        """Add a step's record; returns None while nothing is known."""
        if not record.get("timing_s/step") or total is None:
            return None
        self._times = self._times or [record["time"] - record["timing_s/step"]]
        self._times = [*self._times, record["time"]][-_RECENT - 1 :]
        return (total - record["step"]) * (self._times[-1] - self._times[0]) / (len(self._times) - 1)


def stage(finished: Mapping[str, float]) -> str:
    """Return what a step is doing, from the timers of what it has done."""
    return next((name for timer, name in _STAGES if timer not in finished), "ending the step")


class Progress:
    """Shows on the console how far a run is.

    On a terminal one line is replaced every second; elsewhere there is a line every so often.

    Attributes:
        doing: returns what the run is doing now.
        records: of the first step that this process made, the last one, and the last validation.
    """

    def __init__(self):
        self.doing: Callable[[], str] = lambda: ""
        self.records: dict[str, Mapping[str, Any]] = {}
        self._place, self._values = "", ""
        self._pace, self._doing, self._since = Pace(), "", time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        console.live("")

    def start(self, what: str) -> None:
        """Say what the run does before its first step."""
        self.doing = lambda: what
        if not console.is_terminal():
            console.say(f"{what} ...")

    def update(self, record: Mapping[str, Any], total: int | None) -> None:
        """Show a step's record."""
        seconds_left = self._pace.seconds_left(record, total)
        self._place, self._values = _place(record, total, seconds_left), _values(record)
        if "timing_s/step" in record:  # not the validation before training, at the step that is resumed from
            self.records.setdefault("first", record)
        self.records["last"] = record
        with_validation = bool(validated(record))
        if with_validation:
            self.records["validation"] = record
        if with_validation or (
            not console.is_terminal() and is_due(record["step"], total, console.seconds_of_silence())
        ):
            console.say(describe(record, total, seconds_left))

    def _tick(self) -> None:
        while not self._over.wait(_TICK):
            if (doing := self.doing()) != self._doing:
                self._doing, self._since = doing, time.monotonic()
            now = f"{doing} {clock(time.monotonic() - self._since)}"
            # What a narrow terminal cuts off is the values.
            console.live("  ".join(filter(None, (self._place, f"[{now}]" if self._place else now, self._values))))
            if not console.is_terminal() and console.seconds_of_silence() >= _SILENCE:
                console.say(now)
